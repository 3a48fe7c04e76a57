"""Work queues on Postgres: messages given to members that take, and taken back from members that left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import due_of
from claudemesh.broker.store.types import DueDelivery


async def take(
    pools: Pools, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
) -> Sequence[tuple[str, DueDelivery]]:
    """Give the oldest waiting messages of a queue, in turn, to those of these members that may take."""
    rows = await pools.fetch(_Q["queue_take"], mesh_id, queue, list(member_ids), limit)
    return [(str(row[0]), due_of(tuple(row)[1:])) for row in rows]


async def release(
    pools: Pools, mesh_id: str, member_id: str, connection_id: str, now_ms: int
) -> Collection[str]:
    """Take back what a member holds, unless it has a lease of another connection; returns the queues."""

    async def work(connection: Any) -> Collection[str]:
        # A new connection takes its lease under the same lock before it reads what the member holds.
        await connection.execute(_Q["presence_lock"], member_id)
        rows = await connection.fetch(_Q["queue_release"], mesh_id, member_id, connection_id, now_ms)
        return [row[0] for row in rows]

    return await pools.transaction(work)


async def release_lost(pools: Pools, now_ms: int) -> Collection[tuple[str, str]]:
    """Take back what members hold that have no lease; returns (mesh, queue) of each queue."""
    queues: set[tuple[str, str]] = set()
    for row in await pools.fetch(_Q["queue_holders_lost"], now_ms):
        mesh_id, member_id = str(row[0]), str(row[1])
        released = await release(pools, mesh_id, member_id, "", now_ms)
        queues.update((mesh_id, queue) for queue in released)
    return queues
