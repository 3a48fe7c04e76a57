"""Migrations of the SQLite files from dumps of the files that processes of 0.1.0 wrote."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.types import SendKey
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.errors import SchemaTooNew
from claudemesh.runtime.migrations import apply_migrations, load_migrations

SNAPSHOTS = Path(__file__).with_name("snapshots") / "0.1.0"
PACKAGES = {
    "broker": "claudemesh.broker.store.sqlite.migrations",
    "outbox": "claudemesh.daemon.sql.outbox",
    "inbox": "claudemesh.daemon.sql.inbox",
}
# Columns that a migration changes on purpose: the default limit of a mesh moves to that of the new bucket,
# and the wall time of the next attempt becomes host-lived time under another name.
CHANGED = {("mesh", "rate_limit_per_minute"), ("outbox", "next_attempt_at")}
SENDS = ["dm-1", "dm-2", "queue-1", "topic-1", "topic-2"]
Rows = dict[str, list[tuple[Any, ...]]]


def restored(path: Path, name: str) -> sqlite3.Connection:
    """Write the file of 0.1.0 and return a connection to it in autocommit mode."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript((SNAPSHOTS / f"{name}.sql").read_text(encoding="utf-8"))
    return connection


def schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """Return the type, name and columns or text of each object, without the layout of its statement."""
    found: list[tuple[str, ...]] = []
    for kind, name, text in connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"):
        lines = [line.partition("--")[0] for line in (text or "").splitlines()]
        found.append((kind, name, " ".join(" ".join(lines).split())))
    return found


def columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the columns of each table that keep their values."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table: [
            row[1]
            for row in connection.execute(f"PRAGMA table_info({table})")
            if (table, row[1]) not in CHANGED
        ]
        for table in tables
    }


def rows(connection: sqlite3.Connection, wanted: dict[str, list[str]]) -> Rows:
    """Return the rows of these tables, in the order of their text."""
    return {
        table: sorted(connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall(), key=repr)
        for table, names in wanted.items()
    }


@pytest.mark.parametrize("name", PACKAGES)
def test_a_file_of_0_1_0_becomes_a_file_of_today(tmp_path: Path, name: str) -> None:
    """Its schema is that of a new file, every row keeps its values, and a second run changes nothing."""
    migrations = load_migrations(PACKAGES[name])
    fresh = sqlite3.connect(tmp_path / "fresh.db", isolation_level=None)
    apply_migrations(fresh, migrations)
    old = restored(tmp_path / "old.db", name)
    wanted = columns(old)
    before = rows(old, wanted)
    assert sum(map(len, before.values())) > 0
    assert old.execute("PRAGMA user_version").fetchone()[0] < len(migrations)
    assert apply_migrations(old, migrations) == len(migrations)
    assert schema(old) == schema(fresh)
    assert rows(old, wanted) == before
    dump = list(old.iterdump())
    assert apply_migrations(old, migrations) == len(migrations)
    assert list(old.iterdump()) == dump
    fresh.close()
    old.close()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_file_ahead_of_the_program_keeps_its_rows(tmp_path: Path, name: str) -> None:
    """It is refused, and nothing in it changes."""
    migrations = load_migrations(PACKAGES[name])
    old = restored(tmp_path / "old.db", name)
    old.execute(f"PRAGMA user_version = {len(migrations) + 1}")
    before = list(old.iterdump())
    with pytest.raises(SchemaTooNew):
        apply_migrations(old, migrations)
    assert list(old.iterdump()) == before
    old.close()


async def test_the_broker_knows_the_sends_of_0_1_0(tmp_path: Path) -> None:
    """Each is found by its idempotency key, and what was not delivered is pending."""
    old = restored(tmp_path / "broker.db", "broker")
    keys = {
        SendKey(*row[:3]): row[3]
        for row in old.execute(
            "SELECT mesh_id, sender_member_id, client_message_id, history_id FROM client_message_dedupe"
        )
    }
    undelivered = old.execute("SELECT count(*) FROM delivery_queue").fetchone()[0]
    old.close()
    assert {key.client_message_id for key in keys} == {*SENDS, "dm-b"}
    assert undelivered > 0
    store = SqliteStore(tmp_path / "broker.db")
    await store.open()
    try:
        found = await store.messages.lookup(keys)
        assert {key: row.history_id for key, row in found.items()} == keys
        assert await store.messages.deliveries_pending() == undelivered
    finally:
        await store.close()


async def test_the_daemon_finds_its_sends_of_0_1_0(tmp_path: Path) -> None:
    """Each is found by its client_message_id in the state that it had."""
    restored(tmp_path / "outbox.db", "outbox").close()
    store = await OutboxStore.open(tmp_path / "outbox.db")
    try:
        states = {}
        for name in [*SENDS, "pending-1"]:
            row = await store.get(name)
            assert row is not None
            states[name] = row["status"]
        assert states == {**dict.fromkeys(SENDS, "done"), "pending-1": "pending"}
    finally:
        await store.close()


async def test_the_daemon_finds_what_it_received_in_0_1_0(tmp_path: Path) -> None:
    """Each message is in the inbox under its broker_message_id."""
    old = restored(tmp_path / "inbox.db", "inbox")
    received = [row[0] for row in old.execute("SELECT broker_message_id FROM inbox")]
    old.close()
    assert len(received) == 3
    store = await InboxStore.open(tmp_path / "inbox.db", SystemClock())
    try:
        for key in received:
            assert await store.get(key) is not None
    finally:
        await store.close()
