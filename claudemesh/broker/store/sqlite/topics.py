"""Topics, work queues and subscriptions on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.topics import TopicRow
from claudemesh.broker.store.types import TopicMode
from claudemesh.runtime.sqlite import Database


class SqliteTopics:
    """Implements `TopicStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, mesh_id: str, topic: str, mode: TopicMode, member_id: str, now_ms: int) -> bool:

        def work(raw: sqlite3.Connection) -> bool:
            raw.execute(_Q["topic_deletion_forget"], (mesh_id, topic))
            return raw.execute(_Q["topic_insert"], (mesh_id, topic, mode, member_id, now_ms)).rowcount > 0

        return await self._db.transaction(work)

    async def mode(self, mesh_id: str, topic: str) -> TopicMode | None:
        row = await self._db.run(lambda raw: raw.execute(_Q["topic_mode"], (mesh_id, topic)).fetchone())
        return None if row is None else row[0]

    async def subscribe(self, mesh_id: str, topic: str, member_id: str, now_ms: int) -> bool:

        def work(raw: sqlite3.Connection) -> bool:
            if raw.execute(_Q["topic_exists"], (mesh_id, topic)).fetchone() is None:
                return False
            raw.execute(_Q["topic_subscribe"], (mesh_id, topic, member_id, now_ms))
            return True

        return await self._db.transaction(work)

    async def unsubscribe(self, mesh_id: str, topic: str, member_id: str) -> bool:
        values = (mesh_id, topic, member_id)
        return await self._db.transaction(
            lambda raw: raw.execute(_Q["topic_unsubscribe"], values).rowcount > 0
        )

    async def page(
        self, mesh_id: str, member_id: str, *, after: str = "", limit: int = 1000, counts: bool = True
    ) -> Sequence[TopicRow]:
        values = (mesh_id, member_id, after, limit, counts)
        rows = await self._db.run(lambda raw: raw.execute(_Q["topic_list"], values).fetchall())
        return [TopicRow(name, mode, made, bool(mine), *counts) for name, mode, made, mine, *counts in rows]
