"""Usage of each member on Postgres: counts of rows and of stored bytes.

The transactions that write and delete bodies insert changes; reading the count adds them up first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import key_bytes


class PostgresUsage:
    """Implements `UsageStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def stored(self, mesh_id: str) -> Mapping[str, int]:
        """Return how many bytes of bodies each member has stored; add the changes up first."""

        async def work(connection: Any) -> Mapping[str, int]:
            if await connection.fetchval(_Q["stored_lock"]):
                await connection.execute(_Q["stored_add_up"], mesh_id)
            return {str(row[0]): row[1] for row in await connection.fetch(_Q["stored"], mesh_id)}

        return await self._db.transaction(work)

    async def recount(self) -> int:
        """Count again in one snapshot, while accepts go on, and correct by the difference."""

        async def work(connection: Any) -> int:
            tag: str = await connection.execute(_Q["stored_recount"])
            return int(tag.split()[-1])

        return await self._db.transaction(work, patient=True)

    async def topics_made(self, mesh_id: str, member_id: str) -> int:
        return await self._count("topics_made", mesh_id, member_id)

    async def subscriptions_held(self, mesh_id: str, member_id: str) -> int:
        return await self._count("subscriptions_held", mesh_id, member_id)

    async def invites_open(self, mesh_id: str, pubkey: str, now_ms: int) -> int:
        return await self._count("invites_open", mesh_id, key_bytes(pubkey), now_ms)

    async def _count(self, query: str, *values: object) -> int:
        rows = await self._db.fetch(_Q[query], *values)
        count: int = rows[0][0]
        return count
