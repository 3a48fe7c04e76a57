"""`claudemesh broker up`."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import click

from claudemesh.cli import output
from claudemesh.cli.broker.settings_options import settings_options
from claudemesh.runtime.logs import setup_logging


@click.command()
@settings_options
def up(**flags: Any) -> int:
    """Run a broker in the foreground.

    Every option can also be set by an environment variable, such as CLAUDEMESH_BROKER_LISTEN, or in
    DIR/broker.toml. `claudemesh broker config show --origin` shows the settings that result. Set a database
    password by CLAUDEMESH_BROKER_DATABASE_URL: other users of this machine can read a command line.

    \b
    Examples:
      claudemesh broker up
      claudemesh broker up --listen 0.0.0.0:7900 --data-dir /var/lib/claudemesh
      claudemesh broker up --listen 0.0.0.0:443 --tls-cert chain.pem \\
          --tls-key key.pem --public-url wss://mesh.example.org
      claudemesh broker up --database-url postgresql://mesh@db.example.org/mesh
    """
    # Imported here: the help page needs no loop.
    from claudemesh.broker.settings import load_settings
    from claudemesh.runtime.event_loop import run as run_loop
    from claudemesh.runtime.hardening import protect_memory

    protect_memory()
    for name in ("database_url", "redis_url"):
        if _has_password(flags.get(name)):
            variable = f"CLAUDEMESH_BROKER_{name.upper()}"
            output.note(
                f"Other users of this machine can read the password in this command line. Set {variable}."
            )
    settings = load_settings(flags, os.environ)
    setup_logging(settings.log_level)
    run_loop(partial(_serve, settings))
    return 0


def _has_password(url: str | None) -> bool:
    try:
        return urlsplit(url or "").password is not None
    except ValueError:
        return False


async def _serve(settings: Any) -> None:
    from claudemesh.broker.app import Broker
    from claudemesh.runtime.collecting import settle

    running = Broker(settings)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # A second signal ends the process at once: accepted messages are on the disk.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        running.stop_soon()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await running.start()
    settle()
    place = settings.data_dir if settings.database_url is None else "Postgres"
    output.note(f"broker at {running.url}, data in {place}")
    await running.run()
