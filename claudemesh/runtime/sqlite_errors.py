"""Translation of SQLite's errors into storage errors, with file, reason and remedy."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from claudemesh.runtime.errors import StorageBroken, StorageCorrupt, StorageFull, StorageUnavailable
from claudemesh.runtime.oserrors import descriptor_cause

_PRIMARY_CODE = 0xFF
_IOERR_SHMSIZE = sqlite3.SQLITE_IOERR | (19 << 8)
_IOERR_WRITE = sqlite3.SQLITE_IOERR | (3 << 8)
_PROBE_BYTES = 64 << 10
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def translate_errors(path: Path) -> Generator[None]:
    """Translate errors of sqlite3. Integrity errors and storage errors pass unchanged."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & _PRIMARY_CODE if code is not None else None
    text = str(error)
    if (
        primary == sqlite3.SQLITE_FULL
        or code == _IOERR_SHMSIZE
        or (code == _IOERR_WRITE and _has_no_room(path.parent))
    ):
        return StorageFull(f"the disk that holds {path} is full: free some space, it goes on by itself")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageCorrupt(f"the database {path} is damaged: {text}")
    if primary == sqlite3.SQLITE_IOERR:
        # After a failed fsync the kernel may have dropped the pages: a retry could claim what is not there.
        return StorageBroken(f"the disk that holds {path} failed ({text}): check it, then start again")
    if primary == sqlite3.SQLITE_CANTOPEN and (cause := descriptor_cause()) is not None:
        return StorageUnavailable(f"{path} cannot be opened, because {cause.reason}: {cause.remedy}")
    if primary in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    ):
        return StorageUnavailable(f"the database {path} did not answer: {text}")
    return error


def _has_no_room(folder: Path) -> bool:
    """Return whether writes fail for lack of room. SQLite reports a used-up quota as a failing disk."""
    probe = folder / f".room.{secrets.token_hex(6)}.tmp"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno in _NO_ROOM
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return False
