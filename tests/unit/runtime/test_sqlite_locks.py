"""A file that another process writes to: a transaction waits a while, then is refused as a whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh.runtime import sqlite
from claudemesh.runtime.errors import StorageUnavailable
from claudemesh.runtime.migrations import Migration

SCHEMA = [Migration(1, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);")]


async def test_a_locked_file_refuses_a_transaction_before_its_first_read(tmp_path: Path) -> None:
    """The write lock is taken at the beginning: a transaction that has read cannot fail to write."""
    database = await sqlite.Database.open(tmp_path / "x.db", SCHEMA, busy_s=0.05)
    steps = []

    def read_then_write(raw: sqlite3.Connection) -> None:
        steps.append("read")
        raw.execute("SELECT count(*) FROM t").fetchone()
        raw.execute("INSERT INTO t (b) VALUES ('ours')")

    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable):
            await database.transaction(read_then_write)
        assert steps == []
        other.execute("COMMIT")
    await database.transaction(read_then_write)
    assert await database.run(lambda raw: raw.execute("SELECT b FROM t").fetchall()) == [("ours",)]
    await database.close()
