"""SQLite access: one file, one connection, one thread; WAL, synchronous=FULL, short transactions.

aiosqlite owns the connection and its thread. A transaction runs there as one function, because a hop between
threads for every statement would cost more than the statements themselves.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import aiosqlite

from claudemesh.runtime.errors import (
    StorageBroken,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from claudemesh.runtime.migrations import Migration, apply_migrations
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.sqlite_errors import translate_errors

R = TypeVar("R")

_BUSY_S = 5.0
_BUSY_PAUSE_S = 0.01
_WAL_AUTOCHECKPOINT_PAGES = 4000
# The check at the start reads every page: up to 256 MiB that is under a second. A larger file is open
# before it is checked, and `sqlite_upkeep` checks it in the background.
CHECKED_PAGES = 65_536
_FULL = 2  # PRAGMA synchronous: 2 is FULL
_PRIMARY_CODE = 0xFF


OnFailure: TypeAlias = Callable[[StorageError], None]


class Database:
    """SQLite file that only this process uses.

    After a failed write or a damaged page, every call raises that first `StorageBroken` or
    `StorageCorrupt`. `on_failure` is called once.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        path: Path,
        prepared: Prepared,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._connection = connection
        self._on_failure = on_failure
        self._failure: StorageError | None = None
        self.path = path
        self.schema_version = prepared.version
        # False for a large file, which is still to be checked in the background.
        self.checked = prepared.checked

    @classmethod
    async def open(
        cls,
        path: Path,
        migrations: Sequence[Migration],
        on_failure: OnFailure | None = None,
        *,
        check_pages: int = CHECKED_PAGES,
        busy_s: float = _BUSY_S,
    ) -> Database:
        """Open or create the file (0600), check that it is durable and healthy, and migrate it.

        Another process that holds the write lock is waited for `busy_s` seconds.
        A file of more than `check_pages` pages is checked here only if its last user found it damaged.
        On a full disk a file that needs no migration is opened all the same, for reading. Raises
        `StorageCorrupt`, `SchemaTooNew`, or another `StorageError` with the file, the reason and the remedy.
        """
        _create_private(path)
        suspect = _suspect(path)
        pages = sys.maxsize if suspect.exists() else check_pages
        try:
            connection, prepared = await _connect(path, migrations, pages, busy_s, shared=True)
        except StorageFull:
            # There is no room for the shared memory file. In the exclusive mode SQLite needs none.
            connection, prepared = await _connect(path, migrations, pages, busy_s, shared=False)
        with suppress(OSError):
            suspect.unlink(missing_ok=True)
        return cls(connection, path, prepared, on_failure)

    async def close(self) -> None:
        """Close the file after everything that was queued before."""
        await self._connection.close()

    async def run(self, function: Callable[[sqlite3.Connection], R]) -> R:
        """Run a function on the connection's thread, outside of a transaction: for reading."""
        return await self._guarded(function)

    async def transaction(self, function: Callable[[sqlite3.Connection], R]) -> R:
        """Run a function inside `BEGIN IMMEDIATE … COMMIT`; on return its work is on the disk.

        Any exception rolls back and is raised again. Cancelling the caller does not undo the transaction:
        its outcome is then unknown to the caller.
        """
        return await self._guarded(lambda raw: _transact(raw, function))

    async def _guarded(self, function: Callable[[sqlite3.Connection], R]) -> R:
        if self._failure is not None:
            raise self._failure
        try:
            return await _on_thread(self._connection, self.path, function)
        except (StorageBroken, StorageCorrupt) as error:
            self.fail(error)
            raise

    def fail(self, error: StorageError) -> None:
        """Fail every later call with this error. `on_failure` is called once."""
        if self._failure is not None:
            return
        self._failure = error
        if isinstance(error, StorageCorrupt):
            # The next start checks every page, also of a large file.
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(_suspect(self.path), flags, 0o600))
        if self._on_failure is not None:
            self._on_failure(error)


def _suspect(path: Path) -> Path:
    return path.with_name(f"{path.name}.suspect")


async def _connect(
    path: Path, migrations: Sequence[Migration], check_pages: int, busy_s: float, *, shared: bool
) -> tuple[aiosqlite.Connection, Prepared]:
    with translate_errors(path):
        connection = await aiosqlite.connect(path, isolation_level=None, timeout=busy_s)
    try:
        prepared = await _on_thread(
            connection, path, lambda raw: _prepare(raw, migrations, check_pages, busy_s, shared=shared)
        )
    except BaseException:
        with suppress(sqlite3.Error):
            await connection.close()
        raise
    return connection, prepared


async def _on_thread(
    connection: aiosqlite.Connection, path: Path, function: Callable[[sqlite3.Connection], R]
) -> R:
    def translated() -> R:
        with translate_errors(path):
            return function(connection._conn)

    # The library's way to run a function on the connection's thread. It has no public name.
    result: R = await connection._execute(translated)  # type: ignore[no-untyped-call]
    return result


def _transact(raw: sqlite3.Connection, function: Callable[[sqlite3.Connection], R]) -> R:
    raw.execute("BEGIN IMMEDIATE")
    try:
        result = function(raw)
        raw.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself when the disk was full.
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    return result


def _create_private(path: Path) -> None:
    """Make the file 0600 before SQLite sees it, so that -wal and -shm inherit the mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        _sync_directory(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = StorageFull if full else StorageUnavailable
        raise kind(f"{path} cannot be opened: {explain(error)}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Result of opening a file: the schema's version, and whether every page was checked."""

    version: int
    checked: bool


def _prepare(
    raw: sqlite3.Connection, migrations: Sequence[Migration], check_pages: int, busy_s: float, *, shared: bool
) -> Prepared:
    if not shared:
        raw.execute("PRAGMA locking_mode = EXCLUSIVE")
    if raw.execute("PRAGMA page_count").fetchone()[0] == 0:
        # Only a new file takes this; an older one needs a VACUUM (`sqlite_space.rebuild`).
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = _write_ahead(raw, busy_s)
    raw.execute("PRAGMA synchronous = FULL")
    if sys.platform == "darwin":
        raw.execute("PRAGMA fullfsync = ON")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute(f"PRAGMA wal_autocheckpoint = {_WAL_AUTOCHECKPOINT_PAGES}")
    if mode != "wal" or raw.execute("PRAGMA synchronous").fetchone()[0] != _FULL:
        raise StorageUnavailable(
            "the file system cannot hold a write-ahead log: keep the data on a local disk"
        )
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    checked = pages <= check_pages
    if checked:
        verdict = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StorageCorrupt(f"the database is damaged: {verdict}")
    return Prepared(apply_migrations(raw, migrations), checked)


def _write_ahead(raw: sqlite3.Connection, busy_s: float) -> str:
    """Switch the file to its write-ahead log, again while another process does the same."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            mode: str = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            return mode
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_S)
