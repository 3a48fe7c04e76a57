"""Space of a SQLite file: pages in use, size of the write-ahead log, return of free pages.

Deleted rows leave free pages, which SQLite uses again but does not return to the file system, and the
write-ahead log keeps its largest size. Each function here is one short job on the connection's thread.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.sqlite import Database

_INCREMENTAL = 2  # PRAGMA auto_vacuum


@dataclass(frozen=True, slots=True)
class Space:
    """Sizes of a database in bytes. `wal_bytes` is the size of the log's file."""

    page_bytes: int
    pages: int
    free_pages: int
    wal_bytes: int
    is_incremental: bool

    @property
    def live_bytes(self) -> int:
        """Return the bytes of rows and indexes, without free pages."""
        return (self.pages - self.free_pages) * self.page_bytes

    @property
    def free_bytes(self) -> int:
        """Return the bytes of free pages."""
        return self.free_pages * self.page_bytes

    @property
    def used_bytes(self) -> int:
        """Return the bytes that count against a budget. Free pages do not: new rows use them first."""
        return self.live_bytes + self.wal_bytes


async def space_of(database: Database) -> Space:
    """Return the sizes of a database now."""
    path = database.path

    def read(raw: sqlite3.Connection) -> Space:
        def pragma(name: str) -> int:
            value: int = raw.execute(f"PRAGMA {name}").fetchone()[0]
            return value

        return Space(
            page_bytes=pragma("page_size"),
            pages=pragma("page_count"),
            free_pages=pragma("freelist_count"),
            wal_bytes=_size(path.with_name(path.name + "-wal")),
            is_incremental=pragma("auto_vacuum") == _INCREMENTAL,
        )

    return await database.run(read)


async def truncate_wal(database: Database) -> bool:
    """Write the log back into the file and empty it; False when a reader of another process needs it."""
    busy: int = await database.run(lambda raw: raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
    return busy == 0


async def give_back(database: Database, pages: int) -> None:
    """Return up to `pages` free pages to the file system; the file shrinks at the next checkpoint."""
    # As a script: `execute` would stop after the first page.
    await database.run(lambda raw: raw.executescript(f"PRAGMA incremental_vacuum({pages:d});"))


async def rebuild(database: Database) -> None:
    """Rewrite the file without free pages, in the mode in which it can give pages back later.

    SQLite does it in one transaction: a crash leaves the old file or the new one. Until it is done nothing
    else runs on this database, and it needs as much room again as the rows take.
    """

    def work(raw: sqlite3.Connection) -> None:
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
        raw.execute("VACUUM")

    await database.run(work)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
