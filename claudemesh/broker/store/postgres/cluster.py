"""Signals, leases and a common clock of brokers that share a Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import asyncpg

from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.broker.store.postgres.errors import state_of, translate_errors
from claudemesh.broker.store.postgres.known_server import KnownServer
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.sessions import APPLICATION, connect
from claudemesh.broker.store.postgres.values import lease_columns
from claudemesh.broker.store.types import Lease, Life, PresenceRow
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.postgres")

CHANNEL = "claudemesh"
# No right, no such feature, no such function.
_DOES_NOT_TELL = frozenset({"42501", "0A000", "42883"})


class PostgresCluster:
    """Implements `ClusterStore`."""

    def __init__(
        self, database_url: str, pools: Pools, deadlines: DatabaseDeadlines, server: KnownServer
    ) -> None:
        self._database_url = database_url
        self._db = pools
        self._deadlines = deadlines
        self._server = server
        self._mark: int | None = None
        self._on_compared: Callable[[bool], None] = lambda differs: None

    def hold_mark(self, mark: int, on_compared: Callable[[bool], None]) -> None:
        self._mark, self._on_compared = mark, on_compared

    async def now_ms(self) -> int:
        [row] = await self._db.fetch(_Q["now"])
        return int(row[0])

    async def store_epoch(self) -> str:
        try:
            [row] = await self._db.fetch(_Q["epoch"])
        except (StorageError, asyncpg.PostgresError) as error:
            if state_of(error) not in _DOES_NOT_TELL and state_of(error.__cause__) not in _DOES_NOT_TELL:
                raise
            # Some hosted servers do not tell; there a restore needs its operator to note it.
            log.debug("failover_not_noticed", error=str(error))
            [row] = await self._db.fetch(_Q["epoch_alone"])
        return str(row[0])

    async def life(self) -> Life:
        [row] = await self._db.fetch(_Q["life"])
        return Life(str(row[0]), int(row[1]))

    def accept_from(self, life: Life) -> None:
        self._server.known = life.server_started
        self._server.differs.clear()

    async def exchanged(self) -> None:
        await self._server.differs.wait()

    async def marks_differ(self, mark: int) -> bool:
        [row] = await self._db.fetch(_Q["marks_differ"], mark)
        return bool(row[0])

    async def signal(self, payloads: Sequence[str]) -> None:
        await self._db.fetch(_Q["signal"], CHANNEL, list(payloads))

    async def listen(
        self, hear: Callable[[str], None], resumed: Callable[[], None], worked: Callable[[], None]
    ) -> None:
        bound_s = self._deadlines.connect_s
        with translate_errors():
            connection = await connect(
                self._database_url,
                {},
                name=f"{APPLICATION} signals",
                connect_s=bound_s,
                command_s=bound_s,
            )
            try:
                ended = asyncio.Event()
                connection.add_termination_listener(lambda link: ended.set())
                await connection.add_listener(CHANNEL, lambda link, pid, channel, payload: hear(payload))
                if self._mark is not None:
                    await connection.execute(_Q["mark_hold"], self._mark)
                resumed()
                worked()
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._deadlines.ping_s):
                            await ended.wait()
                        return
                    # A network that swallows everything is only noticed by asking.
                    if self._mark is None:
                        await connection.execute(_Q["ping"])
                    else:
                        self._on_compared(await connection.fetchval(_Q["marks_differ"], self._mark))
                    worked()
            finally:
                connection.terminate()

    async def acquire_lease(
        self, row: PresenceRow, admits: Callable[[Sequence[PresenceRow]], bool]
    ) -> Sequence[PresenceRow]:

        async def work(connection: Any) -> Sequence[PresenceRow]:
            await connection.execute(_Q["presence_lock"], row.member_id)
            rows = await connection.fetch(
                _Q["presence_elsewhere"], row.mesh_id, row.member_id, row.broker_id, row.connected_at
            )
            found = [_presence_of(values) for values in rows]
            if admits(found):
                await connection.execute(_Q["presence_open"], *lease_columns([row]))
            return found

        return await self._db.transaction(work)

    async def leases(self, mesh_ids: Collection[str], now_ms: int) -> Mapping[str, Sequence[Lease]]:
        found: dict[str, list[Lease]] = {}
        for mesh_id, broker_id, members, visible in await self._db.fetch(
            _Q["presence_leases"], list(mesh_ids), now_ms
        ):
            leases = found.setdefault(str(mesh_id), [])
            leases += map(partial(Lease, broker_id), members, visible)
        return found

    async def without_lease(self, connection_ids: Collection[str]) -> Collection[str]:
        if not connection_ids:
            return ()
        rows = await self._db.fetch(_Q["presence_missing"], list(connection_ids))
        return [str(values[0]) for values in rows]

    async def expire(self, now_ms: int) -> None:
        await self._db.execute(_Q["presence_expire"], now_ms)

    async def has_company(self, broker_id: str) -> bool:
        [values] = await self._db.fetch(_Q["presence_company"], broker_id)
        return bool(values[0])

    async def deliveries_since(
        self, after: int | None, member_ids: Collection[str]
    ) -> tuple[int, Sequence[tuple[int, str]]]:
        if after is None:
            [values] = await self._db.fetch(_Q["delivery_newest"])
            return int(values[0]), ()
        rows = await self._db.fetch(_Q["deliveries_since"], after, list(member_ids))
        newest = max((int(values[0]) for values in rows if values[1] is None and values[0]), default=after)
        return newest, [(int(values[0]), str(values[1])) for values in rows if values[1] is not None]

    async def inactive(self, member_ids: Collection[str]) -> Collection[str]:
        if not member_ids:
            return ()
        rows = await self._db.fetch(_Q["members_inactive"], list(member_ids))
        return [str(values[0]) for values in rows]


def _presence_of(values: Sequence[Any]) -> PresenceRow:
    return PresenceRow(values[0], str(values[1]), str(values[2]), values[3], values[4], values[5], values[6])
