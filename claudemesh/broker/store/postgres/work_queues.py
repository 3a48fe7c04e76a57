"""Work queues on Postgres: one statement reads the subscribers and gives them what waits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import due_of
from claudemesh.broker.store.types import DueDelivery


class PostgresQueues:
    """Implements `QueueStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def subscriptions(self, mesh_id: str, member_id: str) -> Sequence[str]:
        return [row[0] for row in await self._db.fetch(_Q["queue_subscriptions"], mesh_id, member_id)]

    async def waiting(self, mesh_id: str, queues: Sequence[str]) -> Collection[str]:
        return [row[0] for row in await self._db.fetch(_Q["queues_waiting"], mesh_id, list(queues))]

    async def take(
        self, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
    ) -> Sequence[tuple[str, DueDelivery]]:
        rows = await self._db.fetch(_Q["queue_take"], mesh_id, queue, list(member_ids), limit)
        return [(str(row[0]), due_of(tuple(row)[1:])) for row in rows]

    async def release(self, mesh_id: str, member_id: str, connection_id: str, now_ms: int) -> Collection[str]:
        async def work(connection: Any) -> Collection[str]:
            # A new connection acquires its lease under the same lock before it reads what the member holds.
            await connection.execute(_Q["presence_lock"], member_id)
            rows = await connection.fetch(_Q["queue_release"], mesh_id, member_id, connection_id, now_ms)
            return [row[0] for row in rows]

        return await self._db.transaction(work)

    async def release_lost(self, now_ms: int) -> Collection[tuple[str, str]]:
        queues: set[tuple[str, str]] = set()
        for row in await self._db.fetch(_Q["queue_holders_lost"], now_ms):
            mesh_id, member_id = str(row[0]), str(row[1])
            released = await self.release(mesh_id, member_id, "", now_ms)
            queues.update((mesh_id, queue) for queue in released)
        return queues
