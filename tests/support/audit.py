"""The contract, read off the databases of a mesh after everything has come to rest."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from claudemesh.protocol.ids import ulid_from_bytes
from tests.support.processes import Daemon, Mesh, until


def rows(path: Path, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Read from a database, also while its process runs."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query, arguments).fetchall()
    finally:
        connection.close()


def broker_rows(mesh: Mesh, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Read from the broker's database, whichever it has."""
    if mesh.broker.database_url is None:
        return rows(mesh.broker.data / "broker.db", query, *arguments)
    return asyncio.run(_postgres_rows(mesh.broker.database_url, query))


async def _postgres_rows(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url, server_settings={"search_path": "mesh"})
    try:
        found = await connection.fetch(query)
    finally:
        await connection.close()
    # Messages are UUIDs there, ULIDs everywhere else.
    return [
        tuple(ulid_from_bytes(value.bytes) if isinstance(value, UUID) else value for value in row)
        for row in found
    ]


def wait_done(sender: Daemon, ids: list[str]) -> None:
    """Wait until every send is `done`."""

    def all_done() -> bool:
        outbox = sender.outbox()
        return all(outbox[client_message_id]["status"] == "done" for client_message_id in ids)

    until(all_done, f"{len(ids)} sends of {sender.name} are done")


def wait_received(receiver: Daemon, ids: list[str], *, opened: bool = True) -> None:
    """Wait until every message is in the inbox, and opened: the key of a post may come behind it."""

    def all_there() -> bool:
        assert receiver.running, receiver.log.read_text()[-3000:]
        items = receiver.inbox()
        return set(ids) <= {
            item["client_message_id"] for item in items if not (opened and item.get("sealed"))
        }

    try:
        until(all_there, f"{len(ids)} messages are in {receiver.name}'s inbox")
    except AssertionError as error:
        raise AssertionError(f"{error}; its log ends:\n{receiver.log.read_text()[-3000:]}") from error


def assert_contract(mesh: Mesh, sender: Daemon, receivers: list[Daemon], ids: list[str]) -> None:
    """Nothing acknowledged missing, one broker id per send, one inbox row, all five side effects or none."""
    wait_done(sender, ids)
    for receiver in receivers:
        wait_received(receiver, ids)
        received = [item["client_message_id"] for item in receiver.inbox()]
        assert [received.count(client_message_id) for client_message_id in ids] == [1] * len(ids)
    outbox = sender.outbox()
    accepted = dict(
        broker_rows(mesh, "SELECT client_message_id, broker_message_id FROM client_message_dedupe")
    )
    for client_message_id in ids:
        assert outbox[client_message_id]["broker_message_id"] == accepted[client_message_id]
    assert_no_orphans(mesh)
    until(lambda: not broker_rows(mesh, "SELECT 1 FROM delivery_queue"), "every delivery is acknowledged")


def assert_no_orphans(mesh: Mesh) -> None:
    """A dedupe row exists iff the accept committed: each has its body and history, and they have it."""
    bodies = "SELECT id FROM message_queue UNION ALL SELECT id FROM topic_message"
    dedupe = "SELECT broker_message_id FROM client_message_dedupe"
    history = "SELECT broker_message_id FROM message_history"
    counts = {}
    for name, query in (("dedupe", dedupe), ("bodies", bodies), ("history", history)):
        found = [row[0] for row in broker_rows(mesh, query)]
        assert len(found) == len(set(found)), name
        counts[name] = set(found)
    assert counts["dedupe"] == counts["bodies"] == counts["history"]
    owed = "SELECT count(*) FROM delivery_queue WHERE broker_message_id NOT IN"
    assert broker_rows(mesh, f"{owed} ({dedupe})") == [(0,)]
