"""Migrations of the databases that processes of 0.1.0 wrote, on both engines, with rows in them.

`snapshots/write_0_1_0.py` wrote the dumps. `test_upgrade.py` runs today's processes on them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.postgres.schema import migrate
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.types import Existing, NewSend, SendKey
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Submission
from claudemesh.protocol.ids import ulid_from_bytes
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.errors import SchemaTooNew
from claudemesh.runtime.migrations import Migration, apply_migrations, load_migrations
from tests.migrations.test_postgres import EXPECTED
from tests.migrations.test_postgres import schema as postgres_schema
from tests.support.postgres import empty_database
from tests.support.snapshots import ENGINES, SNAPSHOTS, restore_database, restored_file

SNAPSHOT = SNAPSHOTS / "0.1.0"
# A file of each kind of database, and of each state that its rows can be in.
FILES = ("broker", "alice/outbox", "bob/outbox", "carol/outbox", "alice/inbox", "bob/inbox")
PACKAGES = {
    "broker": "claudemesh.broker.store.sqlite.migrations",
    "outbox": "claudemesh.daemon.sql.outbox",
    "inbox": "claudemesh.daemon.sql.inbox",
}
POSTGRES = "claudemesh.broker.store.postgres.migrations"
# Columns that a migration changes on purpose: the default limit of a mesh moves to that of the new bucket,
# and the wall time of the next attempt becomes host-lived time under another name.
CHANGED = {("mesh", "rate_limit_per_minute"), ("outbox", "next_attempt_at")}
SENDS = {
    "dm-1": "done",
    "topic-1": "done",
    "queue-1": "done",
    "dm-sealed": "done",
    "dm-again": "done",
    "dm-2": "done",
    "topic-2": "done",
    "topic-3": "done",
    "queue-2": "done",
    "dm-dave": "done",
    "dead-1": "dead",
    "dead-2": "aborted",
    "dead-3": "aborted",
    "dead-4": "dead",
    "inflight-1": "inflight",
}
ACCEPTED = {name for name, state in SENDS.items() if state in ("done", "inflight")} | {"dm-b"}
# Deliveries that wait at the broker: six for bob and his queue, one for a member that was revoked.
UNDELIVERED = 7
# Columns of a received message that are set later than its delivery.
NOT_DELIVERED = {"seq", "shown_at", "acked_at"}
# Tables whose rows are not kept.
GONE = {"mention_index"}
Rows = dict[str, list[tuple[Any, ...]]]


def restored(path: Path, name: str) -> sqlite3.Connection:
    """Write a file of 0.1.0 and return a connection to it in autocommit mode."""
    return restored_file(path, SNAPSHOT / "sqlite" / f"{name}.sql")


def migrations_of(name: str) -> tuple[Migration, ...]:
    """Return the migrations of a file of the snapshot."""
    return tuple(load_migrations(PACKAGES[name.rpartition("/")[2]]))


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
        if table not in GONE
    }


def rows(connection: sqlite3.Connection, wanted: dict[str, list[str]]) -> Rows:
    """Return the rows of these tables, in the order of their text."""
    return {
        table: sorted(connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall(), key=repr)
        for table, names in wanted.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_0_1_0_becomes_a_file_of_today(tmp_path: Path, name: str) -> None:
    """Its schema is that of a new file, every row keeps its values, and a second run changes nothing."""
    migrations = migrations_of(name)
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


@pytest.mark.parametrize("name", FILES)
def test_a_file_ahead_of_the_program_keeps_its_rows(tmp_path: Path, name: str) -> None:
    """It is refused, and nothing in it changes."""
    migrations = migrations_of(name)
    old = restored(tmp_path / "old.db", name)
    old.execute(f"PRAGMA user_version = {len(migrations) + 1}")
    before = list(old.iterdump())
    with pytest.raises(SchemaTooNew):
        apply_migrations(old, migrations)
    assert list(old.iterdump()) == before
    old.close()


def test_the_snapshot_holds_rows_of_each_kind(tmp_path: Path) -> None:
    """A row kind that is missing here is a row kind that no migration was tried on."""
    kinds = {
        "broker": (
            "SELECT DISTINCT status FROM member ORDER BY 1",
            ["active", "left", "revoked"],
        ),
        "alice/outbox": (
            "SELECT DISTINCT status FROM outbox ORDER BY 1",
            ["aborted", "dead", "done", "inflight"],
        ),
        "carol/outbox": ("SELECT DISTINCT status FROM outbox ORDER BY 1", ["pending"]),
        "bob/inbox": ("SELECT DISTINCT acked_at IS NOT NULL FROM inbox ORDER BY 1", [0, 1]),
    }
    for name, (query, expected) in kinds.items():
        old = restored(tmp_path / name.replace("/", "-"), name)
        assert [row[0] for row in old.execute(query)] == expected, name
        old.close()
    filled = {
        "broker": ["mention_index", "delivery_queue", "topic_subscription", "invite", "audit_event"],
        "bob/inbox": ["hook_jobs", "inbox_sealed"],
    }
    for name, tables in filled.items():
        old = restored(tmp_path / f"again-{name.replace('/', '-')}", name)
        counts = {table: old.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
        assert all(counts.values()), counts
        old.close()


async def test_a_database_of_0_1_0_becomes_a_database_of_today() -> None:
    """Its schema is that of a new database, every row keeps its values, and a second run changes nothing."""
    migrations = load_migrations(POSTGRES)
    async with empty_database() as url:
        await restore_database(url, SNAPSHOT / "postgres" / "broker.sql")
        connection = await asyncpg.connect(url)
        try:
            wanted = await postgres_columns(connection)
            before = await postgres_rows(connection, wanted)
            assert len(before["delivery_queue"]) == UNDELIVERED
            assert len(before["schema_migration"]) < len(migrations)
            assert await migrate(connection, migrations) == len(migrations)
            assert (await postgres_schema(url)).splitlines() == EXPECTED.read_text().splitlines()
            after = await postgres_rows(connection, wanted)
            assert set(before.pop("schema_migration")) < set(after.pop("schema_migration"))
            assert after == before
            whole = await postgres_columns(connection)
            again = await postgres_rows(connection, whole)
            assert await migrate(connection, migrations) == len(migrations)
            assert await postgres_rows(connection, whole) == again
        finally:
            await connection.close()


async def test_a_database_ahead_of_the_program_keeps_its_rows() -> None:
    """It is refused, and nothing in it changes."""
    migrations = load_migrations(POSTGRES)
    async with empty_database() as url:
        await restore_database(url, SNAPSHOT / "postgres" / "broker.sql")
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(
                """INSERT INTO mesh.schema_migration (version, applied_at)
                   SELECT number, now() FROM generate_series($1::integer, $2) AS number""",
                await connection.fetchval("SELECT max(version) + 1 FROM mesh.schema_migration"),
                len(migrations) + 1,
            )
            wanted = await postgres_columns(connection)
            before = await postgres_rows(connection, wanted), await postgres_schema(url)
            with pytest.raises(SchemaTooNew):
                await migrate(connection, migrations)
            assert (await postgres_rows(connection, wanted), await postgres_schema(url)) == before
        finally:
            await connection.close()


async def postgres_columns(connection: Any) -> dict[str, list[str]]:
    """Return the columns of each table that keep their values."""
    found: dict[str, list[str]] = {}
    for table, column in await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'mesh'"
    ):
        if (table, column) not in CHANGED and table not in GONE:
            found.setdefault(table, []).append(column)
    return found


async def postgres_rows(connection: Any, wanted: dict[str, list[str]]) -> Rows:
    """Return the rows of these tables, in the order of their text."""
    return {
        table: sorted(
            map(tuple, await connection.fetch(f"SELECT {', '.join(names)} FROM mesh.{table}")), key=repr
        )
        for table, names in wanted.items()
    }


@asynccontextmanager
async def sqlite_broker(tmp_path: Path) -> AsyncGenerator[tuple[Store, list[NewSend]]]:
    """The store of an embedded broker on the file of 0.1.0, and the sends that it had accepted."""
    old = restored(tmp_path / "broker.db", "broker")
    sends = [_send(row) for row in old.execute(_ACCEPTED.format(schema=""))]
    old.close()
    store = SqliteStore(tmp_path / "broker.db")
    await store.open()
    try:
        yield store, sends
    finally:
        await store.close()


@asynccontextmanager
async def postgres_broker(tmp_path: Path) -> AsyncGenerator[tuple[Store, list[NewSend]]]:
    """The store of a broker on the database of 0.1.0, and the sends that it had accepted."""
    async with empty_database() as url:
        await restore_database(url, SNAPSHOT / "postgres" / "broker.sql")
        connection = await asyncpg.connect(url)
        sends = [_send(tuple(row)) for row in await connection.fetch(_ACCEPTED.format(schema="mesh."))]
        await connection.close()
        store = PostgresStore(url)
        await store.open()
        try:
            yield store, sends
        finally:
            await store.close()


_ACCEPTED = """
SELECT mesh_id, sender_member_id, client_message_id, broker_message_id, request_fingerprint,
  destination_kind, destination_ref
FROM {schema}client_message_dedupe
"""


def _send(row: tuple[Any, ...]) -> NewSend:
    message_id = row[3] if isinstance(row[3], str) else ulid_from_bytes(row[3].bytes)
    return NewSend(
        key=SendKey(str(row[0]), str(row[1]), row[2]),
        broker_message_id=message_id,
        request_fingerprint=row[4],
        destination_kind=row[5],
        destination_ref=row[6],
        priority=1,
        envelope=b"{}",
    )


BROKERS: dict[str, Callable[[Path], AbstractAsyncContextManager[tuple[Store, list[NewSend]]]]] = {
    "sqlite": sqlite_broker,
    "postgres": postgres_broker,
}


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_broker_knows_the_sends_of_0_1_0(tmp_path: Path, engine: str) -> None:
    """Each is found by its idempotency key, and is accepted no second time; deliveries stay pending."""
    async with BROKERS[engine](tmp_path) as (store, sends):
        assert {send.key.client_message_id for send in sends} == ACCEPTED
        found = await store.messages.lookup({send.key for send in sends})
        assert {key: row.broker_message_id for key, row in found.items()} == {
            send.key: send.broker_message_id for send in sends
        }
        again = [
            send._replace(broker_message_id=f"01M8FFZZZZ{number:016d}") for number, send in enumerate(sends)
        ]
        outcomes = await store.messages.accept(again, SystemClock().wall_ms())
        assert list(outcomes) == [Existing(found[send.key]) for send in sends]
        assert await store.messages.deliveries_pending() == UNDELIVERED


async def test_the_daemon_finds_its_sends_of_0_1_0(tmp_path: Path) -> None:
    """Each is found by its client_message_id in the state that it had, and its id is not taken again."""
    old = restored(tmp_path / "outbox.db", "alice/outbox")
    fingerprints = dict(old.execute("SELECT client_message_id, request_fingerprint FROM outbox"))
    old.close()
    store = await OutboxStore.open(tmp_path / "outbox.db")
    try:
        items, _ = await store.page(None, 500, None)
        assert {item["client_message_id"]: item["status"] for item in items} == SENDS
        again = [
            Submission(name, fingerprint, NewRow(f"row-{name}", b"{}", 1, 0))
            for name, fingerprint in fingerprints.items()
        ]
        turn = await store.turn(again, [], Now(0, 0), 0)
        statuses = dict(zip(fingerprints, (answer.status for answer in turn.answers), strict=True))
        expected = {"done": 200, "inflight": 202, "dead": 409, "aborted": 409}
        assert statuses == {name: expected[state] for name, state in SENDS.items()}
        items, _ = await store.page(None, 500, None)
        assert {item["client_message_id"]: item["status"] for item in items} == SENDS
    finally:
        await store.close()


async def test_the_daemon_finds_what_it_received_in_0_1_0(tmp_path: Path) -> None:
    """Each message is in the inbox under its broker_message_id, and is not stored a second time."""
    old = restored(tmp_path / "inbox.db", "bob/inbox")
    names = [row[1] for row in old.execute("PRAGMA table_info(inbox)") if row[1] not in NOT_DELIVERED]
    received = [
        InboxRow(**dict(zip(names, row, strict=True)))
        for row in old.execute(f"SELECT {', '.join(names)} FROM inbox")
    ]
    old.close()
    assert len(received) == 5
    store = await InboxStore.open(tmp_path / "inbox.db", SystemClock())
    try:
        for row in received:
            found = await store.get(row.broker_message_id)
            assert found is not None and found["id"] == row.id
        again = [msgspec.structs.replace(row, id=f"again-{number}") for number, row in enumerate(received)]
        assert list(await store.insert(again)) == [None] * len(received)
        assert len(await store.replay(0, 100)) + 1 == len(received)
    finally:
        await store.close()
