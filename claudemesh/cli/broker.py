"""`claudemesh broker …`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import click

from claudemesh.cli import output
from claudemesh.runtime.logs import setup_logging


@click.group()
def broker() -> None:
    """Brokers: the meeting point of a mesh."""


@broker.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:7900 by default.")
@click.option("--data-dir", metavar="DIR", help="Where to keep data; ~/.claudemesh/broker by default.")
@click.option("--database-url", metavar="URL", help="A Postgres to keep data in, instead of SQLite in DIR.")
@click.option(
    "--allow-unsafe-postgres",
    is_flag=True,
    default=None,
    help="Start although the server may lose acknowledged messages.",
)
@click.option("--public-url", metavar="URL", help="The address that daemons dial, when behind a proxy.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def up(**flags: Any) -> int:
    """Run a broker in the foreground, until it is stopped.

    \b
    claudemesh broker up
    claudemesh broker up --listen 0.0.0.0:7900 --data-dir /var/lib/claudemesh
    claudemesh broker up --database-url postgresql://claudemesh@db.example.org/claudemesh

    A password is better kept in CLAUDEMESH_BROKER_DATABASE_URL than in a command line that others see.

    Every option can also be set as CLAUDEMESH_BROKER_… or in DIR/broker.toml.
    """
    # Imported here: only this command needs a broker.
    import uvloop

    from claudemesh.broker.settings import load_settings

    settings = load_settings(flags, os.environ)
    setup_logging(settings.log_level)
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Any) -> None:
    from claudemesh.broker.app import Broker

    running = Broker(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await running.start()
    place = settings.data_dir if settings.database_url is None else "Postgres"
    output.note(f"broker at {running.url}, data in {place}")
    await stop.wait()
    await running.stop()
