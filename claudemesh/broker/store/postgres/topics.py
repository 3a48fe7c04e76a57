"""Topics, work queues and subscriptions on Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.topics import TopicRow
from claudemesh.broker.store.types import TopicMode


class PostgresTopics:
    """Implements `TopicStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def create(self, mesh_id: str, topic: str, mode: TopicMode, member_id: str, now_ms: int) -> bool:
        await self._db.execute(_Q["topic_deletion_forget"], mesh_id, topic)
        return await self._db.execute(_Q["topic_insert"], mesh_id, topic, mode, member_id, now_ms) > 0

    async def mode(self, mesh_id: str, topic: str) -> TopicMode | None:
        rows = await self._db.fetch(_Q["topic_mode"], mesh_id, topic)
        return rows[0][0] if rows else None

    async def subscribe(self, mesh_id: str, topic: str, member_id: str, now_ms: int) -> bool:
        [row] = await self._db.fetch(_Q["topic_subscribe"], mesh_id, topic, member_id, now_ms)
        return bool(row[0])

    async def unsubscribe(self, mesh_id: str, topic: str, member_id: str) -> bool:
        return await self._db.execute(_Q["topic_unsubscribe"], mesh_id, topic, member_id) > 0

    async def page(
        self, mesh_id: str, member_id: str, *, after: str = "", limit: int = 1000, counts: bool = True
    ) -> Sequence[TopicRow]:
        rows = await self._db.fetch(_Q["topic_list"], mesh_id, member_id, after, limit, counts)
        return [TopicRow(*row) for row in rows]
