"""The first connection: says in one sentence why a database cannot be used, and migrates one that can."""

from __future__ import annotations

from typing import Any

import asyncpg

from claudemesh.broker.store.deadlines import DEADLINES
from claudemesh.broker.store.postgres.errors import text_of
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.schema import migrate
from claudemesh.broker.store.postgres.sessions import SESSION, check_sessions, connect
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION, TEMPORARY, UNAVAILABLE, ExitWith
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.migrations import load_migrations

log = get_logger("broker.postgres")

_OLDEST = 140_000
# The second keeps bytes as they come, and ours are UTF-8.
_ENCODINGS = ("UTF8", "SQL_ASCII")
# A migration has its own time limits, which override the settings of the role.
_PATIENT = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # As long as another process may take for it before this one gives up.
    "lock_timeout": "60000",
}


async def prepare_database(
    database_url: str, *, allow_unsafe: bool, connect_s: float = DEADLINES.connect_s
) -> None:
    """Check that the server keeps what it acknowledges, and bring the schema up to date.

    Raises `ExitWith` with a stable code, or `SchemaTooNew`.
    """
    try:
        await check_sessions(database_url, connect_s)
        connection = await connect(database_url, {**SESSION, **_PATIENT}, connect_s=connect_s)
        try:
            await _check_server(connection, allow_unsafe)
            await migrate(connection, load_migrations("claudemesh.broker.store.postgres.migrations"))
            await _check_tables(connection, allow_unsafe)
        finally:
            await connection.close(timeout=connect_s)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise _said(error) from error
    except asyncpg.InternalClientError as error:
        raise _unreachable(error) from error


async def _check_server(connection: Any, allow_unsafe: bool) -> None:
    state = await connection.fetchrow(_Q["server_state"])
    if state["version"] < _OLDEST:
        raise ExitWith(
            CONFIGURATION, "database_too_old", "The broker needs Postgres 14 or newer. Upgrade the server."
        )
    if state["encoding"] not in _ENCODINGS:
        raise ExitWith(
            CONFIGURATION,
            "database_encoding",
            f"The encoding of the database is {state['encoding']}. "
            "Create one with ENCODING 'UTF8' from template0.",
        )
    if state["standby"]:
        raise ExitWith(
            UNAVAILABLE,
            "database_read_only",
            "The database is a standby and takes no writes. Point --database-url at the primary.",
        )
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if state[name] == "off"]
    if off:
        _refuse_unsafe(f"The server has {' and '.join(off)} switched off", "Switch on", allow_unsafe)


async def _check_tables(connection: Any, allow_unsafe: bool) -> None:
    forbidden = await connection.fetchval(_Q["forbidden_tables"])
    if forbidden:
        raise _rights(f"it may not use {forbidden}")
    unlogged = await connection.fetchval(_Q["unlogged_tables"])
    if unlogged:
        _refuse_unsafe(f"The tables {unlogged} are unlogged", "Make them logged", allow_unsafe)


def _refuse_unsafe(what: str, remedy: str, allowed: bool) -> None:
    if allowed:
        log.warning("database_unsafe", detail=what)
        return
    raise ExitWith(
        CONFIGURATION,
        "database_unsafe",
        f"{what}, so a power failure could lose acknowledged messages. {remedy}, or accept it with "
        "--allow-unsafe-postgres.",
    )


def _said(error: Exception) -> ExitWith:
    """Return the ending for a foreign error. None of these texts holds the password."""
    if isinstance(error, (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError)):
        return ExitWith(
            PERMISSION,
            "database_access_denied",
            "The database refused the user or its password. Correct --database-url.",
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return ExitWith(
            CONFIGURATION,
            "database_not_found",
            "The server has no such database. Create it, or correct --database-url.",
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return _rights(text_of(error))
    if isinstance(error, asyncpg.LockNotAvailableError):
        return ExitWith(
            TEMPORARY,
            "database_busy",
            "Another process is migrating the database. Start the broker again when it is done.",
        )
    # A URL that does not parse may quote a part of itself: its text is not repeated.
    if isinstance(error, ValueError) and not isinstance(error, (OSError, asyncpg.PostgresError)):
        return ExitWith(
            CONFIGURATION,
            "invalid_configuration",
            "--database-url (CLAUDEMESH_BROKER_DATABASE_URL) must be like postgresql://user@host:5432/database.",
        )
    return _unreachable(error)


def _rights(why: str) -> ExitWith:
    return ExitWith(
        PERMISSION,
        "database_rights_missing",
        f"The database user lacks rights ({why}). Let it own the database, or the schema mesh in it.",
    )


def _unreachable(error: Exception) -> ExitWith:
    why = text_of(error) or type(error).__name__
    return ExitWith(
        UNAVAILABLE,
        "database_unreachable",
        f"The database does not answer ({why}). Start it, or correct --database-url.",
    )
