"""Checks of a database for damage: before it is opened, and of a large one in the background, table by table.

The background check has a connection of its own: the file's one writing connection would wait for the whole
of it. A reader does not hold that one up, but as long as the reader's snapshot lives the write-ahead log
cannot start over. So the check of a table is given up when the log exceeds a bound, and the table is reported
as unchecked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.errors import StorageCorrupt

_STEPS = 20_000
_CACHE_KIB = 8192


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check: the first damage found, and the tables that were not read to their end."""

    damage: str | None
    unchecked: tuple[str, ...] = ()


def refuse_emptied(path: Path, mark: Path) -> None:
    """Raise `StorageCorrupt` for a database without a byte that was used before, as a copy that was cut.

    SQLite would begin a new one in it. `mark` is a file that is there since the database was used first.
    """
    try:
        is_empty = path.stat().st_size == 0
    except OSError:
        return
    if is_empty and mark.exists():
        raise StorageCorrupt(f"the database {path} is damaged: it has lost its content")


def check_tables(path: Path, is_over: Callable[[], bool], max_wal_bytes: int) -> CheckResult:
    """Check every table with its indexes; blocks, so it belongs on a thread.

    It ends early when `is_over` returns True, and skips a table when the log has grown too large.
    `sqlite3.Error` when the file cannot be read at all.
    """
    wal = path.with_name(path.name + "-wal")

    def must_stop() -> bool:
        return is_over() or (wal.exists() and wal.stat().st_size > max_wal_bytes)

    raw = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    unchecked: list[str] = []
    try:
        raw.execute("PRAGMA query_only = ON")
        raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        raw.set_progress_handler(must_stop, _STEPS)
        for number, table in enumerate(tables):
            if is_over():
                return CheckResult(None, (*unchecked, *tables[number:]))
            try:
                quoted = table.replace('"', '""')
                verdict = raw.execute(f'PRAGMA quick_check("{quoted}")').fetchone()[0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                unchecked.append(table)
                continue
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                    raise
                verdict = str(error)
            if verdict != "ok":
                return CheckResult(f"table {table}: {verdict}")
    finally:
        raw.close()
    return CheckResult(None, tuple(unchecked))
