"""Departed members on Postgres. A lock of the job's name lets one broker work."""

from __future__ import annotations

from typing import Any

from claudemesh.broker.store.departing import BATCH_DELIVERIES, BATCH_MEMBERS, Departed, following
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q

_JOB = "departed-sweep"


class PostgresDeparted:
    """Implements `DepartedStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def forget(self, mesh_id: str, after: int, up_to: int) -> Departed:
        async def work(connection: Any) -> Departed:
            if not await connection.fetchval(_Q["job_lock"], _JOB):
                return Departed(0, None)
            return await _forget(connection, mesh_id, after, up_to)

        return await self._db.transaction(work, patient=True)


async def _forget(connection: Any, mesh_id: str, after: int, up_to: int) -> Departed:
    rows = await connection.fetch(_Q["departed"], mesh_id, after, BATCH_MEMBERS)
    if not rows:
        return Departed(0, None)
    ids = [row[0] for row in rows]
    await connection.execute(_Q["departed_unsubscribe"], mesh_id, ids)
    owed = len(await connection.fetch(_Q["departed_deliveries"], mesh_id, ids, BATCH_DELIVERIES))
    old = {row[0]: row[1] for row in rows if row[1] <= up_to}
    done = [row[0] for row in await connection.fetch(_Q["departed_done"], mesh_id, list(old))]
    if done:
        await connection.execute(_Q["departed_stored"], mesh_id, done)
        await connection.execute(_Q["departed_forget"], mesh_id, done)
        await connection.execute(_Q["departed_tokens"], mesh_id, max(old[member_id] for member_id in done))
    return Departed(len(done), following(after, [row[1] for row in rows], owed))
