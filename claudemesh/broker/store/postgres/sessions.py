"""Sessions: the settings and socket options of each connection, and proof that it is a session of its own.

Settings are made by SQL after connecting, not as start-up parameters: PgBouncer refuses start-up parameters
that it does not know. The socket options let the kernel end a connection whose peer is gone without a word.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from typing import Any

import asyncpg

from claudemesh.broker.store.deadlines import DEADLINES
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.runtime.exits import CONFIGURATION, UNAVAILABLE, ExitWith

APPLICATION = "claudemesh"

_EPOCH_2000_US = 946_684_800_000_000

SESSION: Mapping[str, str] = {
    "default_transaction_isolation": "read committed",
    "search_path": "mesh",
    # Compiling costs more than any of these statements.
    "jit": "off",
    # A plan made while a table was small is kept, and must still do when it is not.
    "enable_seqscan": "off",
    # An index in its own order can stop at the limit; a bitmap reads a whole backlog first.
    "enable_bitmapscan": "off",
    # Planning for every batch would cost as much as running it.
    "plan_cache_mode": "force_generic_plan",
}

# Seconds without traffic until the kernel probes the peer, between two probes, and probes until it gives up.
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
# Linux: the connection ends when the peer has not confirmed data for this time.
_UNCONFIRMED_MS = 8_000

# The server does not know a statement that was prepared on this connection, or knows one that was not.
_SHARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
# PgBouncer in statement mode ends a connection that begins a transaction, and says this.
_STATEMENT_MODE = "statement pooling mode"


async def connect(
    database_url: str,
    settings: Mapping[str, str],
    *,
    name: str = APPLICATION,
    connect_s: float = DEADLINES.connect_s,
    command_s: float | None = None,
) -> Any:
    """Open a connection outside of the pools; `command_s` bounds each of its statements."""
    connection = await asyncpg.connect(
        database_url,
        timeout=connect_s,
        command_timeout=command_s,
        server_settings={"application_name": name},
    )
    try:
        async with asyncio.timeout(connect_s):
            await prepare_session(connection, settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def prepare_session(connection: Any, settings: Mapping[str, str]) -> None:
    """Set a new connection up: socket options, settings, durable commits, times as Unix milliseconds."""
    _watch_peer(connection)
    await connection.fetch(_Q["session_settings"], list(settings), list(settings.values()))
    await connection.fetch(_Q["session_durable"])
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda ms: (ms * 1000 - _EPOCH_2000_US,),
        decoder=lambda value: (value[0] + _EPOCH_2000_US) // 1000,
    )


def _watch_peer(connection: Any) -> None:
    """Let the kernel find a peer that is gone; unix sockets do not need it. Systems differ in the options."""
    # The library offers no public way to the socket.
    transport = getattr(connection, "_transport", None)
    link = None if transport is None else transport.get_extra_info("socket")
    if link is None or link.family not in (socket.AF_INET, socket.AF_INET6):
        return
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNCONFIRMED_MS)


async def check_sessions(database_url: str, connect_s: float) -> None:
    """Prove that a connection keeps its server process between transactions and receives notifications.

    `ExitWith` 78 when a connection pooler on the way shares server processes between connections: prepared
    statements and LISTEN do not work there, and messages would not arrive. Foreign errors pass.
    """
    one = await connect(database_url, {}, connect_s=connect_s, command_s=connect_s)
    try:
        two = await _second(database_url, connect_s)
        try:
            await _check_pair(one, two, connect_s)
        finally:
            two.terminate()
    finally:
        one.terminate()


async def _second(database_url: str, connect_s: float) -> Any:
    try:
        return await connect(database_url, {}, connect_s=connect_s, command_s=connect_s)
    except TimeoutError as error:
        raise ExitWith(
            UNAVAILABLE,
            "database_connections_missing",
            f"The database gives no second connection within {connect_s:.0f} s: raise the pool size of the "
            "connection pooler, or max_connections of the server; each broker needs 10.",
        ) from error


async def _check_pair(one: Any, two: Any, wait_s: float) -> None:
    try:
        if await _is_shared(one, two):
            raise _refusal("it gives one server process to several connections")
        if not await _hears(one, two, wait_s):
            raise _refusal("a notification did not arrive")
    except _SHARED as error:
        raise _refusal("prepared statements get lost") from error
    except asyncpg.PostgresError as error:
        if _STATEMENT_MODE not in str(error):
            raise
        raise _refusal("it does not let transactions begin") from error


async def _is_shared(one: Any, two: Any) -> bool:
    """Whether one process serves both, or several serve the first.

    A pooler that hands out the process that was free last gives the second connection the first one's; one
    that takes turns gives the first connection another from one transaction to the next.
    """
    seen = {await _process(one), await _process(one)}
    async with two.transaction():
        other = await two.fetchval(_Q["session_process"])
        if len(seen) > 1 or other in seen:
            return True
        return await _process(one) not in seen


async def _process(connection: Any) -> int:
    async with connection.transaction():
        process: int = await connection.fetchval(_Q["session_process"])
        return process


async def _hears(one: Any, two: Any, wait_s: float) -> bool:
    """Whether a notification of one connection reaches another, with a transaction of its own in between."""
    heard = asyncio.Event()
    channel = f"claudemesh_check_{secrets.token_hex(8)}"
    await one.add_listener(channel, lambda link, pid, name, payload: heard.set())
    await _process(one)
    await two.fetch(_Q["signal"], channel, [""])
    try:
        async with asyncio.timeout(wait_s):
            await heard.wait()
    except TimeoutError:
        return False
    return True


def _refusal(why: str) -> ExitWith:
    return ExitWith(
        CONFIGURATION,
        "database_sessions_shared",
        f"The database is behind a connection pooler that shares sessions ({why}): set the pooler to session "
        "mode (PgBouncer: pool_mode = session), or let --database-url name the server itself.",
    )
