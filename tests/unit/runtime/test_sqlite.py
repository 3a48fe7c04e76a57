"""One file, one connection: durable settings, transactions that are whole, errors of our own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from claudemesh.runtime.errors import SchemaTooNew, StorageCorrupt, StorageUnavailable
from claudemesh.runtime.migrations import Migration
from claudemesh.runtime.sqlite import Database

SCHEMA = [Migration(1, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE);")]


async def test_wal_and_full_sync_are_in_force(tmp_path: Path) -> None:
    """WAL with synchronous=FULL, read back."""
    database = await Database.open(tmp_path / "x.db", SCHEMA)
    pragmas = await database.run(
        lambda raw: [raw.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    await database.close()
    assert pragmas == ["wal", 2]


async def test_all_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """The database, its -wal and its -shm are 0600."""
    previous = os.umask(0)
    try:
        database = await Database.open(tmp_path / "x.db", SCHEMA)
        await database.transaction(lambda raw: raw.execute("INSERT INTO t (b) VALUES ('x')"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        await database.close()
    finally:
        os.umask(previous)
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}


async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    """Any exception rolls back, and the connection goes on."""
    database = await Database.open(tmp_path / "x.db", SCHEMA)

    def fail(raw: sqlite3.Connection) -> None:
        raw.execute("INSERT INTO t (b) VALUES ('half')")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await database.transaction(fail)
    await database.transaction(lambda raw: raw.execute("INSERT INTO t (b) VALUES ('whole')"))
    rows = await database.run(lambda raw: raw.execute("SELECT b FROM t").fetchall())
    await database.close()
    assert rows == [("whole",)]


async def test_a_full_disk_is_told_and_heals(tmp_path: Path) -> None:
    """When no space is left nothing is written; it works again once there is space."""
    database = await Database.open(tmp_path / "x.db", SCHEMA)
    await database.run(lambda raw: raw.execute("PRAGMA max_page_count = 4"))
    big = "x" * 100_000
    with pytest.raises(StorageUnavailable, match="full"):
        await database.transaction(lambda raw: raw.execute("INSERT INTO t (b) VALUES (?)", (big,)))
    await database.run(lambda raw: raw.execute("PRAGMA max_page_count = 100000"))
    await database.transaction(lambda raw: raw.execute("INSERT INTO t (b) VALUES (?)", (big,)))
    count = await database.run(lambda raw: raw.execute("SELECT count(*) FROM t").fetchone()[0])
    await database.close()
    assert count == 1


async def test_a_newer_schema_is_refused_unchanged(tmp_path: Path) -> None:
    """A file ahead of the binary is not opened, and not touched."""
    newer = [*SCHEMA, Migration(2, "CREATE TABLE u (a INTEGER);")]
    await (await Database.open(tmp_path / "x.db", newer)).close()
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(SchemaTooNew):
        await Database.open(tmp_path / "x.db", SCHEMA)
    assert (tmp_path / "x.db").read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A foreign or damaged file is never overwritten."""
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database at all, but long enough" * 100)
    with pytest.raises(StorageCorrupt):
        await Database.open(path, SCHEMA)
    assert path.read_bytes().startswith(b"not a database")


async def test_migrating_twice_does_no_harm_and_a_failing_one_leaves_the_old(tmp_path: Path) -> None:
    """Migrations are forward only, one transaction each."""
    path = tmp_path / "x.db"
    await (await Database.open(path, SCHEMA)).close()
    await (await Database.open(path, SCHEMA)).close()
    broken = [*SCHEMA, Migration(2, "CREATE TABLE u (a INTEGER);\nINSERT INTO nowhere VALUES (1);")]
    with pytest.raises(sqlite3.OperationalError):
        await Database.open(path, broken)
    database = await Database.open(path, SCHEMA)
    tables = await database.run(
        lambda raw: raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    )
    await database.close()
    assert tables == [("t",)]


async def test_cancelling_the_caller_does_not_undo_the_work(tmp_path: Path) -> None:
    """A caller that goes away during its commit leaves a row that is whole, and a usable connection."""
    database = await Database.open(tmp_path / "x.db", SCHEMA)
    task = asyncio.ensure_future(
        database.transaction(lambda raw: raw.execute("INSERT INTO t (b) VALUES ('kept')"))
    )
    await asyncio.sleep(0)
    task.cancel()
    rows = await database.run(lambda raw: raw.execute("SELECT b FROM t").fetchall())
    await database.close()
    assert rows == [("kept",)]
