"""Deletion of topics on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.topic_deletion import Deletion, TopicGone, TopicKept, judge_deletion


class PostgresTopicDeletions:
    """Implements `TopicDeletionStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def delete(self, wish: Deletion) -> TopicGone | TopicKept:
        return await self._db.transaction(partial(_delete, wish=wish))

    async def deleted(self, mesh_id: str, topics: Sequence[str]) -> Sequence[str]:
        rows = await self._db.fetch(_Q["topics_deleted"], mesh_id, list(topics))
        return [row[0] for row in rows]


async def _delete(connection: Any, *, wish: Deletion) -> TopicGone | TopicKept:
    place = (wish.mesh_id, wish.topic)
    row = await connection.fetchrow(_Q["topic_to_delete"], *place)
    mode, created_by = (None, None) if row is None else row
    waiting = await connection.fetchval(_Q["queue_undelivered"], *place) if mode == "queue" else 0
    kept = judge_deletion(wish, created_by, waiting)
    if kept is not None or mode is None:
        return kept or TopicKept("topic_not_found")
    if waiting:
        await connection.execute(_Q["queue_drop"], *place)
    await connection.execute(_Q["topic_unsubscribe_all"], *place)
    await connection.execute(_Q["topic_remove"], *place)
    await connection.execute(_Q["topic_deletion_note"], *place, wish.now_ms)
    await connection.execute(_Q["topic_deletion_trim"], wish.mesh_id, wish.remembered)
    return TopicGone(mode, waiting)
