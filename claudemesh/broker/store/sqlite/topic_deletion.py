"""Deletion of topics on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.topic_deletion import Deletion, TopicGone, TopicKept, judge_deletion
from claudemesh.runtime.sqlite import Database


class SqliteTopicDeletions:
    """Implements `TopicDeletionStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def delete(self, wish: Deletion) -> TopicGone | TopicKept:
        return await self._db.transaction(lambda raw: _delete(raw, wish))

    async def deleted(self, mesh_id: str, topics: Sequence[str]) -> Sequence[str]:
        values = (mesh_id, orjson.dumps(list(topics)).decode())
        rows = await self._db.run(lambda raw: raw.execute(_Q["topics_deleted"], values).fetchall())
        return [row[0] for row in rows]


def _delete(raw: sqlite3.Connection, wish: Deletion) -> TopicGone | TopicKept:
    place = (wish.mesh_id, wish.topic)
    row = raw.execute(_Q["topic_to_delete"], place).fetchone()
    mode, created_by = (None, None) if row is None else row
    waiting = raw.execute(_Q["queue_undelivered"], place).fetchone()[0] if mode == "queue" else 0
    kept = judge_deletion(wish, created_by, waiting)
    if kept is not None or mode is None:
        return kept or TopicKept("topic_not_found")
    if waiting:
        raw.execute(_Q["queue_drop"], place)
    raw.execute(_Q["topic_unsubscribe_all"], place)
    raw.execute(_Q["topic_remove"], place)
    raw.execute(_Q["topic_deletion_note"], (*place, wish.now_ms))
    raw.execute(_Q["topic_deletion_trim"], (wish.mesh_id, wish.remembered))
    return TopicGone(mode, waiting)
