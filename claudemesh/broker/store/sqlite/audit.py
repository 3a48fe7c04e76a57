"""Audit events on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from claudemesh.broker.store.decisions import PRUNE_ROWS
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import AuditEvent
from claudemesh.runtime.sqlite import Database


class SqliteAudit:
    """Implements `AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def write(self, events: Sequence[AuditEvent]) -> None:
        rows = [
            (
                *(event.mesh_id, event.kind, event.member_id, orjson.dumps(event.data).decode()),
                *(event.created_at, event.lived_ms),
            )
            for event in events
        ]
        await self._db.transaction(lambda raw: raw.executemany(_Q["audit_write"], rows))

    async def newest(self, mesh_id: str, limit: int) -> Sequence[AuditEvent]:
        rows = await self._db.run(lambda raw: raw.execute(_Q["audit_list"], (mesh_id, limit)).fetchall())
        return [AuditEvent(row[0], row[1], row[2], row[3], orjson.loads(row[4])) for row in rows]

    async def prune(self, mesh_id: str, lived_ms: int, before_ms: int, keep: int) -> int:
        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["audit_stamp"], (lived_ms, PRUNE_ROWS))
            return raw.execute(_Q["audit_prune"], (mesh_id, before_ms, keep, PRUNE_ROWS)).rowcount

        return await self._db.transaction(work)
