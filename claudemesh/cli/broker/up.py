"""`claudemesh broker up`."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.settings_options import settings_options
from claudemesh.cli.options import json_option
from claudemesh.cli.streams import discard_stderr
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.logs import get_logger, setup_logging
from claudemesh.runtime.notify import ServiceManager
from claudemesh.runtime.oserrors import cannot
from claudemesh.runtime.own_address import dialled_urls

log = get_logger("broker")


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background. Return when the broker serves.")
@settings_options
@json_option
@answers.action(
    status="string",
    url="string*",
    dialled_urls="array*",
    public_urls="array*",
    pid="integer*",
    data_dir="string*",
)
def up(detach: bool, as_json: bool, **flags: Any) -> int:
    """Start a broker.

    It runs in the foreground, for a service manager, unless -d is given.

    Every option can also be set by an environment variable, such as CLAUDEMESH_BROKER_LISTEN, or in
    DIR/broker.toml. `claudemesh broker config show --origin` shows the settings that result. Set a database
    password by CLAUDEMESH_BROKER_DATABASE_URL: other users of this machine can read a command line.

    \b
    Examples:
      claudemesh broker up -d
      claudemesh broker up --listen 0.0.0.0:7900 --data-dir /var/lib/claudemesh
      claudemesh broker up --listen 0.0.0.0:443 --tls-cert chain.pem \\
          --tls-key key.pem --public-url wss://mesh.example.org
      claudemesh broker up --database-url postgresql://mesh@db.example.org/mesh
    """
    # Imported here: the help page needs no loop.
    from claudemesh.broker.settings import load_settings
    from claudemesh.runtime.event_loop import run as run_loop
    from claudemesh.runtime.hardening import protect_memory

    if not detach:
        protect_memory()
    for name in ("database_url", "redis_url"):
        if _has_password(flags.get(name)):
            variable = f"CLAUDEMESH_BROKER_{name.upper()}"
            output.note(
                f"Other users of this machine can read the password in this command line. Set {variable}."
            )
    settings = load_settings(flags, os.environ)
    if detach:
        # Imported here: only this start needs it.
        from claudemesh.cli.broker.background import start_in_background

        return start_in_background(settings, flags, as_json)
    log_file = os.environ.pop("CLAUDEMESH_LOG_FILE", None)
    setup_logging(settings.log_level, Path(log_file) if log_file else None)
    try:
        manager = ServiceManager.of(os.environ)
        run_loop(partial(_serve, settings, manager, in_background=bool(log_file)))
    except (ExitWith, OSError) as error:
        ending = error if isinstance(error, ExitWith) else cannot("use", error)
        if log_file:
            # Nothing else tells why a broker in the background has ended.
            log.error("broker_ended", error=ending.error, detail=ending.message, exit_code=ending.code)
        raise ending from error
    return 0


def _has_password(url: str | None) -> bool:
    try:
        return urlsplit(url or "").password is not None
    except ValueError:
        return False


async def _serve(settings: Any, manager: ServiceManager, *, in_background: bool) -> None:
    from claudemesh.broker.app import Broker
    from claudemesh.runtime.collecting import settle

    running = Broker(settings, manager=manager)
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
    if in_background:
        discard_stderr()
    place = settings.data_dir if settings.database_url is None else "Postgres"
    addresses = " and ".join(dialled_urls(running.url, settings.public_url))
    listens = "" if addresses == running.url else f" (listens at {running.url})"
    output.note(f"broker at {addresses}{listens}, data in {place}")
    await running.run()
