"""Check of a daemon's databases while it does not run, and their recovery.

A damaged outbox and a damaged list of files are only read. Rows are copied to a new file: from the beginning
as far as the first row that cannot be read, and from the end likewise. A row keeps its client_message_id and
its state: the daemon sends it again under the same id, and the broker recognises a send that it has accepted.
The exchange of the files has its crash story in home/recovered.py.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from claudemesh.client.errors import ClientError
from claudemesh.home.paths import DaemonPaths
from claudemesh.home.recovered import begin_rebuild, exchange, finish_exchange, recovered_path
from claudemesh.runtime.errors import StorageCorrupt, StorageError, StorageFull
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import FileLock, UnsafeFile, open_own, remove, sync_dir
from claudemesh.runtime.migrations import apply_migrations, load_migrations
from claudemesh.runtime.oserrors import cannot
from claudemesh.runtime.sqlite_errors import translate_errors

State: TypeAlias = Literal["missing", "healthy", "damaged"]
# The column of a row's state, and the states of rows that are not delivered.
_UNSENT = {
    "outbox": ("status", ("pending", "inflight")),
    "shared": ("state", ("uploading", "announcing", "attaching")),
}


@dataclass(frozen=True, slots=True)
class Database:
    """A database that is salvaged: its name in sentences, its migrations, and the key of each table.

    Rows of the first table are what was accepted. Rows of another one name theirs in their first column.
    """

    name: str
    package: str
    keys: Mapping[str, str]


OUTBOX = Database(
    "outbox",
    "claudemesh.daemon.sql.outbox",
    {"outbox": "rowid", "receipt": "row_id, member_id", "reoffer": "row_id", "broker_restore": "rowid"},
)
FILES = Database("list of files", "claudemesh.daemon.sql.files", {"shared": "rowid"})
INBOX_PACKAGE = "claudemesh.daemon.sql.inbox"


@dataclass(frozen=True, slots=True)
class Found:
    """The state of a database, with the damage in words."""

    state: State
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Readable rows of a table, in order, with their columns. `is_whole`: there are no others."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    is_whole: bool = False


_LOST: Final = Table()


@dataclass(frozen=True, slots=True)
class Salvage:
    """The readable part of a damaged database: its tables, and the version of the schema."""

    database: Database
    version: int = 0
    tables: Mapping[str, Table] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """Return a table, an empty one if it cannot be read."""
        return self.tables.get(name, _LOST)

    @property
    def accepted(self) -> Table:
        """The table of what was accepted."""
        return self.table(next(iter(self.database.keys)))

    @property
    def unsent(self) -> int:
        """The number of accepted rows that are not delivered."""
        name, states = _UNSENT[next(iter(self.database.keys))]
        found = self.accepted
        column = found.columns.index(name) if found.rows else 0
        return sum(row[column] in states for row in found.rows)


@contextmanager
def stopped(paths: DaemonPaths) -> Generator[None]:
    """Hold the lock of the daemon, so that none starts meanwhile. `ClientError` while one runs."""
    lock = FileLock(paths.lock)
    if not lock.acquire():
        raise ClientError(
            "already_running",
            f"A daemon for mesh {paths.slug} runs, so nothing was changed.",
            next=f"claudemesh daemon down --mesh {paths.slug}",
        )
    try:
        for path in (paths.outbox_db, paths.files_db):
            finish_exchange(path)
        yield
    finally:
        lock.release()


def examine(path: Path, package: str) -> Found:
    """Check every page of a database. `ExitWith` for a file that is another's, newer, or in use."""
    try:
        with open_own(path) as file:
            if not file.read(1):
                return Found("damaged", "it has lost its content")
    except FileNotFoundError:
        return Found("missing")
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", f"{error}.") from error
    except OSError as error:
        raise cannot("read", error, path) from error
    try:
        with translate_errors(path), closing(_reader(path)) as raw:
            version = raw.execute("PRAGMA user_version").fetchone()[0]
            newest = load_migrations(package)[-1].version
            if version > newest:
                text = f"{path}: schema {version} is newer than this program's {newest}. Upgrade claudemesh."
                raise ExitWith(CONFIGURATION, "schema_too_new", text)
            verdict = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
    except StorageCorrupt as error:
        return Found("damaged", str(error))
    except StorageError as error:
        raise ExitWith(TEMPORARY, "cannot_open", f"{error}.") from error
    return Found("healthy") if verdict == "ok" else Found("damaged", str(verdict))


def salvage(path: Path, database: Database) -> Salvage:
    """Return what can be read of a damaged database. Nothing is written."""
    tables: dict[str, Table] = {}
    try:
        with closing(_reader(path)) as raw:
            version = int(raw.execute("PRAGMA user_version").fetchone()[0])
            for name, key in database.keys.items():
                columns = tuple(row[1] for row in raw.execute(f"PRAGMA table_info({name})"))
                # A database of an older schema has no such table, and loses none.
                tables[name] = _salvaged(raw, name, key, columns) if columns else Table(is_whole=version > 0)
    except sqlite3.DatabaseError:
        return Salvage(database)
    return Salvage(database, version, _belonging(tables))


def _salvaged(raw: sqlite3.Connection, name: str, key: str, columns: tuple[str, ...]) -> Table:
    count = key.count(",") + 1
    statement = f"SELECT {key}, * FROM {name} NOT INDEXED ORDER BY "  # noqa: S608
    first, is_whole = _readable(raw, statement + key, count)
    rows = first
    if not is_whole:
        backward = ", ".join(f"{column} DESC" for column in key.split(", "))
        last, _ = _readable(raw, statement + backward, count)
        rows = {**first, **dict(reversed(last.items()))}
    return Table(columns, tuple(rows.values()), is_whole)


def _belonging(tables: Mapping[str, Table]) -> Mapping[str, Table]:
    """Leave out rows that belong to an accepted one that cannot be read."""
    known = {row[0] for row in next(iter(tables.values())).rows}
    return {
        name: replace(table, rows=tuple(row for row in table.rows if row[0] in known))
        if table.columns[:1] == ("row_id",)
        else table
        for name, table in tables.items()
    }


def replace_database(path: Path, kept: Salvage) -> tuple[int, Path]:
    """Put a new database with these rows in the place of a damaged one.

    Return the number of accepted rows in it, and where the damaged file was moved. `ExitWith` when the new
    file cannot be written; nothing was changed then.
    """
    ready = recovered_path(path)
    draft = path.with_name(f"{path.name}.recovering")
    try:
        for old in (ready, draft, draft.with_name(f"{draft.name}-journal")):
            remove(old)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with translate_errors(draft):
            count = _write(draft, kept)
        failpoint("recover.after_draft")
        draft.rename(ready)
        sync_dir(path.parent)
        failpoint("recover.after_ready")
    except (StorageError, OSError) as error:
        remove(draft)
        code = "disk_full" if isinstance(error, StorageFull) else "cannot_write"
        text = f"The {kept.database.name} was not changed: {error}."
        raise ExitWith(TEMPORARY, code, text) from error
    return count, exchange(path, f"damaged-{time.time_ns() // 1_000_000}")


def replace_inbox(path: Path) -> None:
    """Move a damaged inbox aside. The next start begins a new one and fills it from the history."""
    try:
        begin_rebuild(path, time.time_ns() // 1_000_000)
    except OSError as error:
        raise cannot("move aside", error, path) from error


def _write(draft: Path, kept: Salvage) -> int:
    migrations = load_migrations(kept.database.package)
    with closing(sqlite3.connect(draft, isolation_level=None)) as raw:
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
        raw.execute("PRAGMA synchronous = FULL")
        # The daemon brings an older schema up to date at its start, as it does for any database.
        apply_migrations(raw, migrations[: kept.version or None])
        raw.execute("BEGIN")
        for name, table in kept.tables.items():
            # The new table has the columns of the old one in the same order: both come from the same
            # migrations.
            statement = f"INSERT INTO {name} VALUES ({', '.join('?' * len(table.columns))})"  # noqa: S608
            for row in table.rows:
                # A row with a value that no row has: its page is damaged.
                with suppress(sqlite3.IntegrityError):
                    raw.execute(statement, row)
        raw.execute("COMMIT")
        accepted = next(iter(kept.database.keys))
        return int(raw.execute(f"SELECT count(*) FROM {accepted}").fetchone()[0])  # noqa: S608


def _readable(
    raw: sqlite3.Connection, statement: str, count: int
) -> tuple[dict[tuple[Any, ...], tuple[Any, ...]], bool]:
    """Return rows by their key, of `count` columns, until one cannot be read, and whether all can."""
    rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    try:
        for row in raw.execute(statement):
            rows[row[:count]] = tuple(row[count:])
    except sqlite3.DatabaseError:
        return rows, False
    return rows, True


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
