"""Start-up of a broker: its data dir, its store, and the values that it keeps between runs."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from pathlib import Path

from claudemesh.broker.setting_checks import MIN_TOKEN_CHARACTERS, check_token
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.runtime.errors import StorageCorrupt, StorageError, StorageFull
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, UNAVAILABLE, ExitWith
from claudemesh.runtime.extras import require_extra
from claudemesh.runtime.files import (
    FileLock,
    UnsafeFile,
    make_private_dir,
    read_private,
    remove,
    write_atomic,
)
from claudemesh.runtime.oserrors import cannot, explain, local_cause
from claudemesh.runtime.sqlite import OnFailure
from claudemesh.runtime.sqlite_check import refuse_emptied

_TOKEN_BYTES = 32


def take_data_dir(data_dir: Path, stack: AsyncExitStack) -> None:
    """Make the data dir private and lock it until the stack closes. `ExitWith`: it cannot be used."""
    try:
        make_private_dir(data_dir)
        data_dir.chmod(0o700)
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_data_dir", str(error)) from error
    except OSError as error:
        raise _unusable(data_dir, error) from error
    lock = FileLock(data_dir / "lock")
    try:
        is_ours = lock.acquire()
    except OSError as error:
        raise cannot("open", error, lock.path) from error
    if not is_ours:
        raise ExitWith(
            TEMPORARY, "already_running", f"Another broker uses {data_dir}. Stop it, or give --data-dir."
        )
    stack.callback(lock.release)


def _unusable(data_dir: Path, error: OSError) -> ExitWith:
    cause = local_cause(error)
    if cause is not None and cause.exit_code == TEMPORARY:
        return cannot("use", error, data_dir)
    return ExitWith(CONFIGURATION, "unusable_data_dir", f"Cannot use {data_dir}: {explain(error)}.")


def cannot_open(settings: BrokerSettings, error: StorageError) -> ExitWith:
    """Return the ending for a store that does not open: temporary unless the file is damaged."""
    if settings.database_url is None and not isinstance(error, StorageCorrupt):
        code = "disk_full" if isinstance(error, StorageFull) else "storage_unavailable"
        return ExitWith(TEMPORARY, code, f"{error}.")
    return ExitWith(UNAVAILABLE, "storage_unavailable", str(error))


def make_store(settings: BrokerSettings, on_failure: OnFailure) -> Store:
    """Return the store that the settings name, not open yet. `StorageCorrupt` when it has lost its
    content."""
    if settings.database_url is None:
        path = settings.data_dir / "broker.db"
        if not path.exists():
            # A kill while the file is made leaves one without a byte, which is no damage. The leases of the
            # id are gone with the file.
            remove(_id_file(settings.data_dir))
        refuse_emptied(path, _id_file(settings.data_dir))
        return SqliteStore(path, on_failure)
    require_extra("postgres", "asyncpg", "database_url")
    # Imported here: an embedded broker has no use for it.
    from claudemesh.broker.store.postgres import PostgresStore

    return PostgresStore(
        settings.database_url,
        allow_unsafe=settings.allow_unsafe_postgres,
        deadlines=settings.limits.database,
    )


def admin_token_of(settings: BrokerSettings) -> bytes:
    """Return the token: from the settings, else from the data dir, where a missing one is created (0600)."""
    if settings.admin_token is not None:
        token = settings.admin_token.encode()
    else:
        token = _kept(settings.data_dir / "admin_token", secrets.token_urlsafe(_TOKEN_BYTES))
    try:
        check_token(token.decode("ascii", "replace"))
    except ValueError as error:
        raise ExitWith(
            CONFIGURATION,
            "weak_admin_token",
            f"The admin token needs at least {MIN_TOKEN_CHARACTERS} ASCII characters without blanks. Create "
            "a longer one.",
        ) from error
    return token


def kept_id(data_dir: Path, fresh: str) -> str:
    """Return this broker's id, the same after every start, so that its old leases are found.

    It is written when the database was opened first.
    """
    return _kept(_id_file(data_dir), fresh).decode("ascii", "replace")


def _id_file(data_dir: Path) -> Path:
    return data_dir / "broker_id"


def _kept(path: Path, fresh: str) -> bytes:
    try:
        return read_private(path).strip()
    except FileNotFoundError:
        try:
            write_atomic(path, fresh.encode())
        except OSError as error:
            raise cannot("write", error, path) from error
        return fresh.encode()
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", str(error)) from error
