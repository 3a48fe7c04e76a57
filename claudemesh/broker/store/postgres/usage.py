"""Shares of members, on Postgres (`Shares`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import key_bytes
from claudemesh.broker.store.types import PRUNE_ROWS


class PostgresShares:
    """Implements `Shares`."""

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

    async def topic_known(self, mesh_id: str, topic: str) -> bool:
        """Whether there is a topic or queue of this name."""
        return await self._count("topic_known", mesh_id, topic) > 0

    async def topics_made(self, mesh_id: str, member_id: str) -> int:
        """Return how many topics and queues a member has created."""
        return await self._count("topics_made", mesh_id, member_id)

    async def subscriptions_held(self, mesh_id: str, member_id: str) -> int:
        """Return how many topics and queues a member is subscribed to."""
        return await self._count("subscriptions_held", mesh_id, member_id)

    async def invites_open(self, mesh_id: str, pubkey: str, now_ms: int) -> int:
        """Return how many invites of the member with this key can still be used."""
        return await self._count("invites_open", mesh_id, key_bytes(pubkey), now_ms)

    async def audit_prune(self, mesh_id: str, lived_ms: int, before_ms: int, keep: int) -> int:
        """Delete a batch of a mesh's oldest events."""

        async def work(connection: Any) -> int:
            await connection.execute(_Q["audit_stamp"], lived_ms, PRUNE_ROWS)
            tag: str = await connection.execute(_Q["audit_prune"], mesh_id, before_ms, keep, PRUNE_ROWS)
            return int(tag.split()[-1])

        return await self._db.transaction(work)

    async def _count(self, query: str, *values: object) -> int:
        rows = await self._db.fetch(_Q[query], *values)
        count: int = rows[0][0]
        return count
