"""Migrations of every SQLite file: twice is harmless, two at once are harmless, ahead is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import Now
from claudemesh.runtime.errors import SchemaTooNew
from claudemesh.runtime.migrations import Migration, load_migrations
from claudemesh.runtime.sqlite import Database
from tests.support.envelopes import build, build_topic
from tests.support.processes import REPOSITORY
from tests.support.waiting import WAIT_S

PACKAGES = [
    "claudemesh.broker.store.sqlite.migrations",
    "claudemesh.daemon.sql.outbox",
    "claudemesh.daemon.sql.inbox",
    "claudemesh.daemon.sql.files",
]

_OPEN = """
import asyncio, sys
from pathlib import Path
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.sqlite import Database
async def main():
    await (await Database.open(Path(sys.argv[1]), load_migrations(sys.argv[2]))).close()
asyncio.run(main())
"""


async def schema(database: Database) -> list[tuple[str, str]]:
    """Everything that the file's schema says, in order."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    return await database.run(lambda raw: raw.execute(query).fetchall())


@pytest.mark.parametrize("package", PACKAGES)
async def test_migrating_again_changes_nothing(tmp_path: Path, package: str) -> None:
    """The version decides."""
    migrations = load_migrations(package)
    database = await Database.open(tmp_path / "x.db", migrations)
    first = await schema(database)
    await database.close()
    database = await Database.open(tmp_path / "x.db", migrations)
    assert await schema(database) == first
    assert database.schema_version == len(migrations)
    await database.close()


@pytest.mark.parametrize("package", PACKAGES)
def test_two_processes_may_migrate_at_once(tmp_path: Path, package: str) -> None:
    """The second finds the work done."""
    arguments = [sys.executable, "-c", _OPEN, str(tmp_path / "x.db"), package]
    processes = [subprocess.Popen(arguments, cwd=REPOSITORY, stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_schema_ahead_of_the_program_is_refused(tmp_path: Path, package: str) -> None:
    """An older program does not touch a newer file."""
    migrations = list(load_migrations(package))
    newer = [*migrations, Migration(len(migrations) + 1, "CREATE TABLE later (a INTEGER);")]
    await (await Database.open(tmp_path / "x.db", newer)).close()
    with pytest.raises(SchemaTooNew):
        await Database.open(tmp_path / "x.db", migrations)


async def test_sends_of_the_first_schema_go_on_and_begin_to_age_at_the_upgrade(tmp_path: Path) -> None:
    """Their wall times mean nothing to the lived clock: what waited is ready, and as old as the upgrade."""
    migrations = load_migrations("claudemesh.daemon.sql.outbox")
    database = await Database.open(tmp_path / "outbox.db", migrations[:1])
    insert = (
        "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, attempts,"
        " next_attempt_at, status, priority)"
        " VALUES (?1, ?1, x'00', x'', 1780000000000, 1, 1780000030000, ?2, 1)"
    )
    for name, status in (("waiting", "pending"), ("flying", "inflight"), ("over", "done")):
        await database.transaction(lambda raw, row=(name, status): raw.execute(insert, row))
    await database.close()
    store = await OutboxStore.open(tmp_path / "outbox.db")
    try:
        assert await store.newest_stamp() is None
        assert await store.recover(5_000, 37_500) == 1
        turn = await store.turn([], [], Now(1_780_000_000_000, 5_001, None), 10)
        assert [row.id for row in turn.taken] == ["waiting", "flying"]
        assert (await store.counts())["pending"] == 0
        await store.recover(5_002, 37_500)
        assert await store.expire(5_000, 0, 10) == []
        assert len(await store.expire(5_001, 0, 10)) == 2
    finally:
        await store.close()


async def test_posts_that_version_0_1_0_never_sent_wait_for_the_key_of_their_topic(tmp_path: Path) -> None:
    """They leave sealed. One that was sent may have been accepted, and leaves as it is."""
    migrations = load_migrations("claudemesh.daemon.sql.outbox")
    database = await Database.open(tmp_path / "outbox.db", migrations[:1])
    insert = (
        "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, attempts,"
        " next_attempt_at, status, priority) VALUES (?1, ?1, x'00', ?2, 0, ?3, 0, ?4, 1)"
    )
    post = build_topic().encode()
    rows = (
        ("new", post, 0, "pending"),
        ("sent", post, 1, "pending"),
        ("flying", post, 0, "inflight"),
        ("dm", build().encode(), 0, "pending"),
        ("damaged", b"{", 0, "pending"),
    )
    for row in rows:
        await database.transaction(lambda raw, row=row: raw.execute(insert, row))
    await database.close()
    store = await OutboxStore.open(tmp_path / "outbox.db")
    try:
        assert await store.topics_waited_for() == ["alerts"]
        await store.recover(5_000, 37_500)
        turn = await store.turn([], [], Now(1_780_000_000_000, 5_001, None), 10)
        assert [row.id for row in turn.taken] == ["sent", "flying", "dm", "damaged"]
    finally:
        await store.close()


async def test_the_old_default_rate_limit_moves_to_the_new_one(tmp_path: Path) -> None:
    """A limit that an operator has set stays; every member gets the defaults of the new buckets."""
    migrations = load_migrations(PACKAGES[0])
    database = await Database.open(tmp_path / "broker.db", migrations[:6])
    for slug, limit in (("kept", 500), ("moved", 6000)):
        values = (slug, slug, limit)
        await database.transaction(
            lambda raw, values=values: raw.execute(  # type: ignore[misc]
                "INSERT INTO mesh VALUES (?, ?, 'prefer_newest', 'permanent', 365, 90, ?, 0)", values
            )
        )
    await database.close()
    database = await Database.open(tmp_path / "broker.db", migrations)
    query = (
        "SELECT rate_limit_per_minute, member_rate_limit_per_minute, member_bytes_per_minute"
        " FROM mesh ORDER BY slug"
    )
    rows = await database.run(lambda raw: raw.execute(query).fetchall())
    await database.close()
    assert rows == [(500, 30_000, 268_435_456), (120_000, 30_000, 268_435_456)]


async def test_a_database_in_which_two_members_share_an_x25519_key_can_be_upgraded(tmp_path: Path) -> None:
    """The first keeps the key; the other is marked, and no other member can take it."""
    migrations = load_migrations(PACKAGES[0])
    before = next(number for number, step in enumerate(migrations) if "repeats_sealing_key" in step.sql)
    database = await Database.open(tmp_path / "broker.db", migrations[:before])

    def fill(raw: sqlite3.Connection) -> None:
        raw.execute(
            "INSERT INTO mesh (id, slug, clone_concurrency_policy, dedupe_retention_mode,"
            " dedupe_retention_days, message_retention_days, rate_limit_per_minute, created_at)"
            " VALUES ('mesh', 'demo', 'prefer_newest', 'permanent', 365, 90, 500, 0)"
        )
        for key, box, created in (
            ("b", "shared", 2),
            ("a", "shared", 1),
            ("c", "own", 3),
            ("d", "shared", 2),
        ):
            raw.execute(
                "INSERT INTO member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey,"
                " x25519_signature, key_id, ephemeral, created_at)"
                " VALUES (?1, 'mesh', ?1, 'member', 'active', ?1, ?2, x'00', 'k', 0, ?3)",
                (key, box, created),
            )
            raw.execute(_INSERT_KEY, (key, box, created))

    await database.transaction(fill)
    await database.close()
    database = await Database.open(tmp_path / "broker.db", migrations)
    query = "SELECT member_id FROM member_key WHERE repeats_sealing_key ORDER BY member_id"
    assert await database.run(lambda raw: raw.execute(query).fetchall()) == [("b",), ("d",)]
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        await database.transaction(lambda raw: raw.execute(_INSERT_KEY, ("e", "shared", 4)))
    await database.close()


_INSERT_KEY = (
    "INSERT INTO member_key (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at)"
    " VALUES ('k', 'mesh', ?1, ?1, ?2, 'current', ?3)"
)


_MEMBER = (
    "INSERT INTO member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey, x25519_signature,"
    " key_id, ephemeral, created_at) VALUES (?1, ?2, ?1, 'member', ?3, ?1, ?1, x'00', 'k', 0, ?4)"
)


async def test_members_of_the_first_schemas_get_versions(tmp_path: Path) -> None:
    """Each mesh counts for itself, in the order of joining; the next change goes on from there."""
    migrations = load_migrations(PACKAGES[0])
    database = await Database.open(tmp_path / "broker.db", migrations[:8])

    def fill(raw: sqlite3.Connection) -> None:
        for slug in ("one", "two"):
            raw.execute(
                "INSERT INTO mesh VALUES (?1, ?1, 'prefer_newest', 'permanent', 365, 90, 9, 0, 9, 9)", (slug,)
            )
        for number, name in enumerate(("b", "a", "c")):
            raw.execute(_MEMBER, (name, "one", "active", number))
        raw.execute(_MEMBER, ("d", "two", "left", 0))

    await database.transaction(fill)
    await database.close()
    database = await Database.open(tmp_path / "broker.db", migrations)
    await database.transaction(lambda raw: raw.execute("UPDATE member SET status = 'left' WHERE id = 'b'"))

    def read(raw: sqlite3.Connection) -> tuple[list[tuple[str, int, int]], list[tuple[str, int]]]:
        members = "SELECT id, changed_version, joined_version FROM member ORDER BY id"
        return raw.execute(members).fetchall(), raw.execute(
            "SELECT d.mesh_id, d.version FROM directory AS d JOIN directory_token AS t"
            " USING (mesh_id, version, token) ORDER BY 1"
        ).fetchall()

    members, versions = await database.run(read)
    await database.close()
    assert members == [("a", 2, 2), ("b", 4, 1), ("c", 3, 3), ("d", 1, 1)]
    assert versions == [("one", 4), ("two", 1)]


async def test_epochs_and_wraps_of_before_outlive_their_topics_behind_the_upgrade(tmp_path: Path) -> None:
    """Their tables are made again without the bond to the topic: every row is kept, and so are the marks."""
    migrations = load_migrations(PACKAGES[0])
    before = next(number for number, step in enumerate(migrations) if "topic_made_again" in step.sql)
    database = await Database.open(tmp_path / "broker.db", migrations[:before])

    def fill(raw: sqlite3.Connection) -> None:
        raw.execute(
            "INSERT INTO mesh (id, slug, clone_concurrency_policy, dedupe_retention_mode,"
            " dedupe_retention_days, message_retention_days, rate_limit_per_minute, created_at)"
            " VALUES ('mesh', 'demo', 'prefer_newest', 'permanent', 365, 90, 500, 0)"
        )
        raw.execute(_MEMBER, ("ada", "mesh", "active", 0))
        raw.execute(_TOPIC, ("mesh", "news"))
        raw.execute("INSERT INTO topic_epoch VALUES ('mesh', 'news', 4, 'c', 'p', 'ada', x'01', 5, 'ada', 6)")
        raw.execute(
            "INSERT INTO topic_wrap VALUES ('mesh', 'news', 4, 'ada', 'ada', 'bob', x'02', x'03', x'04')"
        )

    tables = ("topic_epoch", "topic_wrap")

    def rows(raw: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
        return [raw.execute(f"SELECT * FROM {table}").fetchall() for table in tables]

    await database.transaction(fill)
    kept = await database.run(rows)
    await database.close()
    database = await Database.open(tmp_path / "broker.db", migrations)
    query = "SELECT key_epoch, key_floor, rekey_wanted FROM topic"

    def made_again(raw: sqlite3.Connection) -> tuple[int, ...]:
        raw.execute("DELETE FROM topic")
        raw.execute(_TOPIC, ("mesh", "news"))
        found: tuple[int, ...] = raw.execute(query).fetchone()
        return found

    assert await database.run(rows) == kept
    assert await database.transaction(made_again) == (4, 4, 1)
    assert await database.run(rows) == kept
    mark = "UPDATE topic SET key_floor = 0, rekey_wanted = 0"
    await database.transaction(lambda raw: raw.execute(mark))
    await database.transaction(lambda raw: raw.execute("UPDATE member SET status = 'revoked'"))
    assert await database.run(lambda raw: raw.execute(query).fetchone()) == (4, 4, 1)
    await database.transaction(lambda raw: raw.execute("DELETE FROM mesh"))
    assert await database.run(rows) == [[], []]
    await database.close()


_TOPIC = "INSERT INTO topic (mesh_id, name, mode, created_by, created_at) VALUES (?1, ?2, 'topic', 'ada', 0)"
