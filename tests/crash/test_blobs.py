"""SIGKILL of the broker at each step of an upload: the file arrives whole, once."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import Server
from tests.support.processes import Daemon, Mesh, mesh, until

# Longer than what an embedded broker writes between two syncs.
SIZE = 10_000_000
EMBEDDED = [
    "blob.after_write@1",
    "blob.after_write@5",
    "blob.after_sync@1",
    "blob.after_progress@1",
    "blob.after_sync@2",
    "blob.after_rename@1",
    "blob.after_complete@1",
]
SHARED = ["blob.after_progress@1", "blob.after_progress@5", "blob.after_complete@1"]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    """One mesh for all of these; each test restarts its broker."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture(scope="module")
def on_postgres() -> Generator[Mesh]:
    """The same mesh, its broker on a Postgres of this module's own."""
    server = Server()
    try:
        server.start()
        with mesh("alice", "bob", database_url=server.url()) as made:
            yield made
    finally:
        server.remove()


def received(daemon: Daemon, text: str) -> list[dict[str, Any]]:
    """The messages with this text."""
    return [item for item in daemon.inbox() if item["body"] == text]


def share_while_killed(made: Mesh, folder: Path, failpoint: str) -> None:
    """Share a file while the broker dies at a failpoint, start it again, and fetch the file."""
    made.heal()
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    made.broker.stop()
    name, _, hit = failpoint.partition("@")
    made.broker.start(f"{name}=kill@{hit}")
    made.broker.ready()
    content = random.Random(next(_numbers)).randbytes(SIZE)
    source = folder / "build.tar"
    source.write_bytes(content)
    text = f"the build {failpoint}"
    status, answer = alice.request(
        "POST", "/v1/file/share", {"path": str(source), "to": "bob", "message": text}
    )
    assert status == 202, answer
    made.broker.wait_killed()
    made.broker.start()
    made.broker.ready()
    until(lambda: received(bob, text), "the message has arrived")
    out = folder / "fetched"
    out.mkdir()

    def fetched() -> bool:
        status, answer = bob.request("POST", "/v1/file/get", {"id": answer_id, "out": str(out / "it")})
        assert status < 500 or status in (502, 503), answer
        return status == 200

    answer_id = answer["file_id"]
    until(fetched, "the file is fetched")
    assert (out / "it").read_bytes() == content
    [message] = received(bob, text)
    assert message["attachments"][0]["size"] == SIZE


@pytest.mark.parametrize("failpoint", EMBEDDED)
def test_a_broker_killed_at_a_step_of_an_upload_loses_nothing(
    running: Mesh, tmp_path: Path, failpoint: str
) -> None:
    share_while_killed(running, tmp_path, failpoint)
    with closing(sqlite3.connect(running.broker.data / "broker.db")) as database:
        rows = {row[0]: row[1:] for row in database.execute("SELECT id, size, received, complete FROM blob")}
    assert all(size == counted and complete for size, counted, complete in rows.values())
    assert set(os.listdir(running.broker.data / "blobs")) == set(rows)


@pytest.mark.parametrize("failpoint", SHARED)
def test_a_broker_killed_at_a_step_of_an_upload_to_postgres_loses_nothing(
    on_postgres: Mesh, tmp_path: Path, failpoint: str
) -> None:
    share_while_killed(on_postgres, tmp_path, failpoint)
