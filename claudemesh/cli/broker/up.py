"""`claudemesh broker up`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from urllib.parse import urlsplit

import click

from claudemesh.cli import output
from claudemesh.runtime.logs import setup_logging


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:7900 by default.")
@click.option("--data-dir", metavar="DIR", help="Where to keep data; ~/.claudemesh/broker by default.")
@click.option("--database-url", metavar="URL", help="A Postgres to keep data in, instead of SQLite in DIR.")
@click.option(
    "--allow-unsafe-postgres",
    is_flag=True,
    default=None,
    help="Start although the server may lose acknowledged messages.",
)
@click.option("--redis-url", metavar="URL", help="A Redis or Valkey that several brokers limit rates with.")
@click.option(
    "--public-url",
    multiple=True,
    metavar="URL",
    help="An address that daemons dial, besides those it listens at. May be given several times.",
)
@click.option(
    "--trusted-proxies",
    metavar="LIST",
    help="Addresses or networks of proxies that tell in X-Forwarded-For for whom they ask.",
)
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM): speak wss:// and https://.")
@click.option("--tls-key", metavar="FILE", help="Its private key (PEM).")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def up(**flags: Any) -> int:
    """Run a broker in the foreground, until it is stopped.

    \b
    claudemesh broker up
    claudemesh broker up --listen 0.0.0.0:7900 --data-dir /var/lib/claudemesh
    claudemesh broker up --listen 0.0.0.0:443 --public-url wss://mesh.example.org \\
        --tls-cert chain.pem --tls-key key.pem
    claudemesh broker up --database-url postgresql://claudemesh@db.example.org/claudemesh

    A password is better kept in CLAUDEMESH_BROKER_DATABASE_URL than in a command line that others see.

    Every option can also be set as CLAUDEMESH_BROKER_… or in DIR/broker.toml.
    """
    # Imported here: only this command needs a broker.
    import uvloop

    from claudemesh.broker.settings import load_settings
    from claudemesh.runtime.hardening import protect_memory

    protect_memory()
    for name in ("database_url", "redis_url"):
        if _has_password(flags.get(name)):
            variable = f"CLAUDEMESH_BROKER_{name.upper()}"
            output.note(
                f"Every user of this machine can read the password in this command line: set {variable}."
            )
    settings = load_settings(flags, os.environ)
    setup_logging(settings.log_level)
    uvloop.run(_serve(settings))
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
        # A second signal ends the process at once: what was accepted is on the disk.
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
