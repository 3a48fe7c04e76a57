"""Alice sends, bob has hooks."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.integration.hooks.hooked import Host
from tests.support.processes import Mesh, mesh


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob; their hooks are on, and there are none yet."""
    with mesh("alice", "bob", start=False) as made:
        for daemon in made.daemons.values():
            Host(daemon)
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        yield made


@pytest.fixture
def bob(pair: Mesh) -> Generator[Host]:
    """Bob's hooks, none to begin with."""
    host = Host(pair.daemons["bob"])
    yield host
    clear(host)


@pytest.fixture
def alice(pair: Mesh) -> Generator[Host]:
    """Alice's hooks, none to begin with."""
    host = Host(pair.daemons["alice"])
    yield host
    clear(host)


def clear(host: Host) -> None:
    """Leave no hook and no trace for the next test."""
    for path in (*host.folder.iterdir(), *host.out.iterdir()):
        if path.is_symlink() or path.is_file():
            path.unlink()
    host.daemon.log.write_text("")
    host.reload()
