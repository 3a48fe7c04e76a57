"""A mesh whose broker is several of them, on one Postgres and behind a balancer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.balancer import balancer
from tests.support.postgres import Server
from tests.support.processes import Broker, Mesh, free_port


@dataclass
class Fleet:
    """The mesh, and its brokers."""

    mesh: Mesh
    brokers: list[Broker]


def share_token(broker: Broker) -> None:
    """Give a broker the admin token that all brokers of its database have."""
    broker.data.mkdir(mode=0o700)
    token = broker.data / "admin_token"
    token.touch(0o600)
    token.write_text("the-token-of-all-brokers-of-the-fleet")


@contextmanager
def fleet(count: int, *names: str) -> Generator[Fleet]:
    """So many brokers, and these members, connected to whichever broker answered."""
    server = Server()
    root = Path(tempfile.mkdtemp(prefix="cm-"))
    made = Mesh(root, None)
    brokers: list[Broker] = []
    try:
        server.start()
        front_port = free_port()
        for number in range(count):
            folder = root / str(number)
            folder.mkdir()
            brokers.append(Broker(folder, server.url()))
            share_token(brokers[-1])
            brokers[-1].stand_behind(front_port)
        made.broker = brokers[0]
        brokers[0].start()
        brokers[0].ready()
        with balancer([broker.port for broker in brokers], front_port) as front:
            brokers[0].url = front.url
            made.add(names[0])
            for broker in brokers[1:]:
                broker.start()
                broker.ready()
            for name in names[1:]:
                made.add(name)
            for daemon in made.daemons.values():
                daemon.start()
            for daemon in made.daemons.values():
                daemon.ready()
            yield Fleet(made, brokers)
    finally:
        for process in (*made.daemons.values(), *brokers):
            if process.running:
                process.kill()
        server.remove()
        shutil.rmtree(root, ignore_errors=True)
