"""Translation of errors of Postgres and of connections to it into ours. Foreign errors stop here."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg

from claudemesh.runtime.errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StorageUnreachable,
)

UNIQUE_VIOLATION = "23505"
QUERY_CANCELED = "57014"
# Serialization failure, deadlock, lock timeout: rolled back whole, and likely to pass the next time.
TRANSIENT = frozenset({"40001", "40P01", "55P03"})

_DISK_FULL = "53100"
_CORRUPT = frozenset({"XX001", "XX002"})
# No connection, no access, no such database, the server stops or starts, no more connections.
_UNREACHABLE_CLASSES = frozenset({"08", "28"})
_UNREACHABLE = frozenset({"3D000", "57P01", "57P02", "57P03", "57P05", "53300"})
# A state of the server or of the schema: transactions, missing tables and rights, resources, objects in use,
# a cancelled statement, the system's own errors. A message cannot cause any of them, and they may pass.
_UNAVAILABLE_CLASSES = frozenset({"25", "40", "42", "53", "55", "57", "58"})


@contextmanager
def translate_errors() -> Generator[None]:
    """Turn foreign errors into ours; what is the statement's own fault stays as it is."""
    try:
        yield
    except Exception as error:
        ours = translated(error)
        if ours is None:
            raise
        raise ours from error


def translated(error: Exception) -> StorageError | None:
    """Return our error for a foreign one, or None when it is the statement's own fault.

    Without the server's word the outcome is unknown, also of a commit: `StorageUnavailable`.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _by_state(error)
    # The library says so in many ways when a connection ends under a statement; a value that it
    # cannot encode is our caller's mistake.
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return None
    if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return StorageUnreachable(f"the database did not answer: {type(error).__name__}: {text_of(error)}")
    return None


def _by_state(error: asyncpg.PostgresError) -> StorageError | None:
    state = str(error.sqlstate)
    if state == _DISK_FULL:
        return StorageFull("the database's disk is full: free some space, it goes on by itself")
    if state in _CORRUPT:
        return StorageCorrupt(f"the database is damaged: {text_of(error)}")
    if state in _UNREACHABLE or state[:2] in _UNREACHABLE_CLASSES:
        return StorageUnreachable(f"the database takes no connection ({state}): {text_of(error)}")
    if state[:2] in _UNAVAILABLE_CLASSES:
        return StorageUnavailable(f"the database did not do it ({state}): {text_of(error)}")
    return None


def state_of(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of an error, if it has one."""
    return error.sqlstate if isinstance(error, asyncpg.PostgresError) else None


def text_of(error: Exception) -> str:
    """Return what an error says, without the server's details: those may quote a row, body and all."""
    return str(error.args[0]) if isinstance(error, asyncpg.PostgresError) and error.args else str(error)
