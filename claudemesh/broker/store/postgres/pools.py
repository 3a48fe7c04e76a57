"""Connections to Postgres: two pools, sessions set up alike, bounded retries, errors of ours alone.

Accepting and acknowledging have a pool of their own, so that a crowd which reads what it is owed
after a restart does not hold them up. More connections would only add latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import asyncpg

from claudemesh.broker.store.postgres.errors import TRANSIENT, state_of, translate_errors
from claudemesh.runtime.errors import StorageUnavailable
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.postgres")

R = TypeVar("R")

ATTEMPTS = 5
CONNECT_S = 10.0
_ACQUIRE_S = 10.0
_CLOSE_S = 5.0
_STATEMENT_MS = 20_000
# Longer than the server's own bound: it ends what does not even say that it was cancelled.
_COMMAND_S = 30.0
_LOCK_MS = 2_000
_POOL_SIZE = 4

_EPOCH_2000_US = 946_684_800_000_000

# Part of the start of every session; `statement_timeout` and its like bound what a broker waits for.
SESSION = {
    "application_name": "claudemesh",
    "default_transaction_isolation": "read committed",
    "search_path": "mesh",
    # Compiling costs more than any of these statements.
    "jit": "off",
    # A plan made while a table was small is kept, and must still do when it is not.
    "enable_seqscan": "off",
    # An index in its own order can stop at the limit; a bitmap reads a whole backlog first.
    "enable_bitmapscan": "off",
    # Planning anew for every batch would cost as much as running it.
    "plan_cache_mode": "force_generic_plan",
}
_BOUNDS = {
    "statement_timeout": str(_STATEMENT_MS),
    "lock_timeout": str(_LOCK_MS),
    "idle_in_transaction_session_timeout": str(_STATEMENT_MS),
}
# Acknowledged means on the disk, whatever the server's default; a stronger setting stays.
_DURABLE = """SELECT set_config('synchronous_commit', 'on', false)
              WHERE current_setting('synchronous_commit') = 'off'"""


async def prepare_session(connection: Any) -> None:
    """Make commits durable, and let times be Unix milliseconds on our side."""
    await connection.execute(_DURABLE)
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda ms: (ms * 1000 - _EPOCH_2000_US,),
        decoder=lambda value: (value[0] + _EPOCH_2000_US) // 1000,
    )


async def _keep_session(_: Any) -> None:
    """Nothing is changed in a session: resetting it would cost a round trip per statement."""


class _Pool:
    """The library's pool, and the connections that wait here for their next use.

    Giving one back starts a task: whoever had it would wait until the loop has done all else that is due.
    """

    def __init__(self, pool: Any, size: int) -> None:
        self._pool = pool
        self._free = asyncio.Semaphore(size)
        self._waiting: list[Any] = []

    async def open(self) -> None:
        """Connect."""
        await self._pool

    async def close(self) -> None:
        """Close every connection; what still runs on one after a while is cut off, its outcome unknown."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                while self._waiting:
                    await self._pool.release(self._waiting.pop())
                await self._pool.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        """Hold a connection that nobody else uses. `TimeoutError` when there is none for long."""
        # Not the library's own timeout, which makes a task each time.
        async with asyncio.timeout(_ACQUIRE_S):
            await self._free.acquire()
        try:
            connection = await self._take()
            try:
                yield connection
            except BaseException:
                # The library finds out whether it can still be used.
                await self._pool.release(connection)
                raise
            self._waiting.append(connection)
        finally:
            self._free.release()

    async def _take(self) -> Any:
        while self._waiting:
            connection = self._waiting.pop()
            # One that was lost has gone back by itself, and then answers nothing.
            with suppress(asyncpg.InterfaceError):
                if not connection.is_closed():
                    return connection
            await self._pool.release(connection)
        async with asyncio.timeout(_ACQUIRE_S):
            return await self._pool.acquire()


class Pools:
    """The connections of one store. Raises our errors; what is the statement's own fault stays asyncpg's."""

    def __init__(self, accepting: _Pool, others: _Pool) -> None:
        self._accepting = accepting
        self._others = others

    @classmethod
    async def open(cls, database_url: str) -> Pools:
        """Connect. The database was checked before (`opening`)."""
        pools = []
        for _ in range(2):
            pool = asyncpg.create_pool(
                database_url,
                # Connected when first needed, and again after the server went away.
                min_size=0,
                max_size=_POOL_SIZE,
                timeout=CONNECT_S,
                command_timeout=_COMMAND_S,
                server_settings=SESSION | _BOUNDS,
                init=prepare_session,
                reset=_keep_session,
            )
            pools.append(_Pool(pool, _POOL_SIZE))
        made = cls(*pools)
        try:
            for pool in pools:
                with translate_errors():
                    await pool.open()
        except BaseException:
            await made.close()
            raise
        return made

    async def close(self) -> None:
        """Close every connection."""
        for pool in (self._accepting, self._others):
            await pool.close()

    async def fetch(self, query: str, *values: object, accepting: bool = False) -> Sequence[Any]:
        """Run a statement in a transaction of its own and return its rows."""

        async def work(connection: Any) -> Sequence[Any]:
            rows: Sequence[Any] = await connection.fetch(query, *values)
            return rows

        return await self.run(work, accepting=accepting)

    async def execute(self, query: str, *values: object, accepting: bool = False) -> int:
        """Run a statement in a transaction of its own and return how many rows it changed."""

        async def work(connection: Any) -> int:
            tag: str = await connection.execute(query, *values)
            return int(tag.rpartition(" ")[2])

        return await self.run(work, accepting=accepting)

    async def transaction(
        self, work: Callable[[Any], Awaitable[R]], *, retried: frozenset[str] = TRANSIENT
    ) -> R:
        """Run a function inside BEGIN … COMMIT; an exception rolls back."""

        async def inside(connection: Any) -> R:
            async with connection.transaction():
                return await work(connection)

        return await self.run(inside, retried=retried)

    async def run(
        self,
        work: Callable[[Any], Awaitable[R]],
        *,
        accepting: bool = False,
        retried: frozenset[str] = TRANSIENT,
    ) -> R:
        """Run a function with a connection, and again, at most `ATTEMPTS` times in all, when the
        server rolled it back for one of the states in `retried`."""
        pool = self._accepting if accepting else self._others
        for attempt in range(1, ATTEMPTS + 1):
            with translate_errors():
                try:
                    async with pool.connection() as connection:
                        return await work(connection)
                except asyncpg.PostgresError as error:
                    if state_of(error) not in retried or attempt == ATTEMPTS:
                        raise
                    log.warning("transaction_retried", sqlstate=error.sqlstate, attempt=attempt)
        raise AssertionError("unreachable")


@contextmanager
def committing_in_full(connection: Any) -> Generator[None]:
    """Raise when a commit came with a warning: the server then did not do all that it was asked for.

    A wait for a synchronous standby that somebody cancelled ends in such a commit (faults.md, 43).
    """
    warnings: list[str] = []

    def note(_: object, message: Any) -> None:
        if message.severity_en == "WARNING":
            warnings.append(str(message))

    connection.add_log_listener(note)
    try:
        yield
    finally:
        connection.remove_log_listener(note)
    if warnings:
        raise StorageUnavailable(f"the database committed with a warning: {warnings[0]}")
