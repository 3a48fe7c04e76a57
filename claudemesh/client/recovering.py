"""Check of a daemon's databases while it does not run, and their recovery.

The damaged file is only read. Rows are copied to a new file: from the beginning as far as the first row that
cannot be read, and from the end likewise. A row keeps its client_message_id and its state: the daemon sends
it again under the same id, and the broker recognises a send that it has accepted. The exchange of the files
has its crash story in home/recovered.py.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

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
_UNSENT = ("pending", "inflight")
_ROWS = {
    "forward": "SELECT rowid, * FROM outbox NOT INDEXED ORDER BY rowid",
    "backward": "SELECT rowid, * FROM outbox NOT INDEXED ORDER BY rowid DESC",
}


@dataclass(frozen=True, slots=True)
class Found:
    """The state of a database, with the damage in words."""

    state: State
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Salvage:
    """Readable rows of a damaged outbox: in order, with their columns, and the version of the schema."""

    version: int
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def unsent(self) -> int:
        """The number of rows that are not delivered."""
        status = self.columns.index("status") if self.rows else 0
        return sum(row[status] in _UNSENT for row in self.rows)


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
        finish_exchange(paths.outbox_db)
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


def salvage(path: Path) -> Salvage:
    """Return what can be read of a damaged outbox. Nothing is written."""
    try:
        with closing(_reader(path)) as raw:
            version = int(raw.execute("PRAGMA user_version").fetchone()[0])
            columns = tuple(row[1] for row in raw.execute("PRAGMA table_info(outbox)"))
            if not columns:
                return Salvage(0, (), ())
            first = dict(_readable(raw, _ROWS["forward"]))
            last = dict(_readable(raw, _ROWS["backward"]))
            rows = {**first, **last}
            return Salvage(version, columns, tuple(rows[number] for number in sorted(rows)))
    except sqlite3.DatabaseError:
        return Salvage(0, (), ())


def replace_outbox(path: Path, kept: Salvage, package: str) -> tuple[int, Path]:
    """Put a new outbox with these rows in the place of a damaged one.

    Return how many rows it has, and where the damaged file was moved. `ExitWith` when the new file cannot be
    written; nothing was changed then.
    """
    ready = recovered_path(path)
    draft = path.with_name(f"{path.name}.recovering")
    try:
        for old in (ready, draft, draft.with_name(f"{draft.name}-journal")):
            remove(old)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with translate_errors(draft):
            count = _write(draft, kept, package)
        failpoint("recover.after_draft")
        draft.rename(ready)
        sync_dir(path.parent)
        failpoint("recover.after_ready")
    except (StorageError, OSError) as error:
        remove(draft)
        code = "disk_full" if isinstance(error, StorageFull) else "cannot_write"
        raise ExitWith(TEMPORARY, code, f"The outbox was not changed: {error}.") from error
    return count, exchange(path, f"damaged-{time.time_ns() // 1_000_000}")


def replace_inbox(path: Path) -> None:
    """Move a damaged inbox aside. The next start begins a new one and fills it from the history."""
    try:
        begin_rebuild(path, time.time_ns() // 1_000_000)
    except OSError as error:
        raise cannot("move aside", error, path) from error


def _write(draft: Path, kept: Salvage, package: str) -> int:
    migrations = load_migrations(package)
    count = 0
    with closing(sqlite3.connect(draft, isolation_level=None)) as raw:
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
        raw.execute("PRAGMA synchronous = FULL")
        # The daemon brings an older schema up to date at its start, as it does for any outbox.
        apply_migrations(raw, migrations[: kept.version or None])
        if not kept.rows:
            return 0
        # The new table has the columns of the old one in the same order: both come from the same migrations.
        statement = f"INSERT INTO outbox VALUES ({', '.join('?' * len(kept.columns))})"  # noqa: S608
        raw.execute("BEGIN")
        for row in kept.rows:
            try:
                raw.execute(statement, row)
                count += 1
            except sqlite3.IntegrityError:
                # A row with a value that no row has: its page is damaged.
                continue
        raw.execute("COMMIT")
    return count


def _readable(raw: sqlite3.Connection, statement: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield rows by their number until one cannot be read."""
    try:
        for row in raw.execute(statement):
            yield row[0], tuple(row[1:])
    except sqlite3.DatabaseError:
        return


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
