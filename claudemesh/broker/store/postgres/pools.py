"""Connections to Postgres: two pools, equal sessions, bounded retries, errors of ours alone.

Accepting and acknowledging have a pool of their own, so that members that read their deliveries after a
restart do not hold them up. More connections would only add latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import asyncpg

from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.broker.store.postgres.errors import TRANSIENT, state_of, translate_errors
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.sessions import APPLICATION, SESSION, prepare_session
from claudemesh.runtime.errors import StorageUnavailable
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.postgres")

R = TypeVar("R")

ATTEMPTS = 5
# How long the library may take to make a connection usable again after a statement failed on it.
_RECOVER_S = 2.0
# Retention works through cold pages in batches.
_PATIENT_MS = 30_000
_PATIENT_S = 35.0
_POOL_SIZE = 4


def _bounds(deadlines: DatabaseDeadlines) -> Mapping[str, str]:
    bounds = {
        "statement_timeout": deadlines.statement_s,
        "lock_timeout": deadlines.lock_s,
        "idle_in_transaction_session_timeout": deadlines.idle_s,
    }
    return {name: str(round(seconds * 1000)) for name, seconds in bounds.items()}


async def _set_up(connection: Any, settings: Mapping[str, str], connect_s: float) -> None:
    """Prepare the session of a new connection, in bounded time."""
    async with asyncio.timeout(connect_s):
        await prepare_session(connection, settings)


async def _keep_session(_: Any) -> None:
    """Nothing is changed in a session: resetting it would cost a round trip per statement."""


class _Pool:
    """The library's pool, and the connections that are free.

    asyncpg's `release()` starts a task and yields to the loop; free connections are kept here to avoid
    that wait.
    """

    def __init__(self, pool: Any, size: int, deadlines: DatabaseDeadlines) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._free = asyncio.Semaphore(size)
        self._waiting: list[Any] = []

    async def open(self) -> None:
        """Make the pool; connections are opened when they are needed."""
        await self._pool

    async def close(self) -> None:
        """Close every connection; what still runs on one after a while is cut off, its outcome unknown."""
        try:
            async with asyncio.timeout(self._deadlines.close_s):
                while self._waiting:
                    await self._pool.release(self._waiting.pop())
                await self._pool.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self, deadline_s: float | None = None) -> AsyncGenerator[Any]:
        """Hold a connection exclusively, until the deadline.

        `TimeoutError` when none becomes free, or when the deadline passes: the connection is then cut off,
        and the outcome of what ran on it is unknown.
        """
        # Not the library's own timeout, which makes a task each time.
        async with asyncio.timeout(self._deadlines.acquire_s):
            await self._free.acquire()
        try:
            connection = await self._take()
            try:
                async with asyncio.timeout(deadline_s or self._deadlines.use_s):
                    yield connection
            except BaseException as error:
                await self._recover(connection, error)
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
        async with asyncio.timeout(self._deadlines.acquire_s):
            return await self._pool.acquire()

    async def _recover(self, connection: Any, error: BaseException) -> None:
        """Give a connection back on which something failed: usable again, or cut off, in bounded time."""
        if isinstance(error, TimeoutError):
            # The server's own bound is shorter, and its word did not come: the free connections most likely
            # end in the same nowhere, and each would cost its user another deadline.
            self._cut_off(connection)
            while self._waiting:
                self._cut_off(self._waiting.pop())
            return
        try:
            await self._pool.release(connection, timeout=_RECOVER_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._cut_off(connection)

    def _cut_off(self, connection: Any) -> None:
        with suppress(asyncpg.InterfaceError):
            connection.terminate()


class Pools:
    """The connections of one store. Raises our errors; what is the statement's own fault stays asyncpg's."""

    def __init__(self, accepting: _Pool, others: _Pool) -> None:
        self._accepting = accepting
        self._others = others

    @classmethod
    async def open(cls, database_url: str, deadlines: DatabaseDeadlines) -> Pools:
        """Connect. The database was checked before (`preflight`)."""
        settings = {**SESSION, **_bounds(deadlines)}
        set_up = partial(_set_up, settings=settings, connect_s=deadlines.connect_s)
        pools = []
        for _ in range(2):
            pool = asyncpg.create_pool(
                database_url,
                # Connected when first needed, and again after the server went away.
                min_size=0,
                max_size=_POOL_SIZE,
                timeout=deadlines.connect_s,
                server_settings={"application_name": APPLICATION},
                init=set_up,
                reset=_keep_session,
            )
            pools.append(_Pool(pool, _POOL_SIZE, deadlines))
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
        self,
        work: Callable[[Any], Awaitable[R]],
        *,
        retried: frozenset[str] = TRANSIENT,
        patient: bool = False,
    ) -> R:
        """Run a function inside BEGIN … COMMIT; an exception rolls back. `patient` raises its time limits."""

        async def inside(connection: Any) -> R:
            async with connection.transaction():
                if patient:
                    await connection.fetch(_Q["transaction_patience"], str(_PATIENT_MS))
                return await work(connection)

        return await self.run(inside, retried=retried, deadline_s=_PATIENT_S if patient else None)

    async def run(
        self,
        work: Callable[[Any], Awaitable[R]],
        *,
        accepting: bool = False,
        retried: frozenset[str] = TRANSIENT,
        deadline_s: float | None = None,
    ) -> R:
        """Run a function with a connection, and again, at most `ATTEMPTS` times in all, when the
        server rolled it back for one of the states in `retried`."""
        pool = self._accepting if accepting else self._others
        for attempt in range(1, ATTEMPTS + 1):
            with translate_errors():
                try:
                    async with pool.connection(deadline_s) as connection:
                        return await work(connection)
                except asyncpg.PostgresError as error:
                    if state_of(error) not in retried or attempt == ATTEMPTS:
                        raise
                    log.debug("transaction_retried", sqlstate=error.sqlstate, attempt=attempt)
        raise AssertionError("unreachable")


@contextmanager
def committing_in_full(connection: Any) -> Generator[None]:
    """Raise when a commit came with a warning: the server then did not do all that it was asked for.

    A cancelled wait for a synchronous standby ends in such a commit.
    """
    warnings: list[str] = []

    def note(_: object, message: Any) -> None:
        if message.severity_en == "WARNING":
            warnings.append(str(message))

    connection.add_log_listener(note)
    try:
        yield
    finally:
        # A connection that was lost has left the pool with its listeners; what lost it is to be told.
        with suppress(asyncpg.InterfaceError):
            connection.remove_log_listener(note)
    if warnings:
        raise StorageUnavailable(f"the database committed with a warning: {warnings[0]}")
