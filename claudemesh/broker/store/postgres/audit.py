"""Audit events on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from claudemesh.broker.store.decisions import PRUNE_ROWS
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.types import AuditEvent


class PostgresAudit:
    """Implements `AuditStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def write(self, events: Sequence[AuditEvent]) -> None:
        await self._db.execute(
            _Q["audit_write"],
            [event.mesh_id for event in events],
            [event.kind for event in events],
            [event.member_id for event in events],
            [orjson.dumps(event.data).decode() for event in events],
            [event.created_at for event in events],
            [event.lived_ms for event in events],
        )

    async def newest(self, mesh_id: str, limit: int) -> Sequence[AuditEvent]:
        rows = await self._db.fetch(_Q["audit_list"], mesh_id, limit)
        return [
            AuditEvent(str(row[0]), row[1], row[2] and str(row[2]), row[3], orjson.loads(row[4]))
            for row in rows
        ]

    async def prune(self, mesh_id: str, lived_ms: int, before_ms: int, keep: int) -> int:
        async def work(connection: Any) -> int:
            await connection.execute(_Q["audit_stamp"], lived_ms, PRUNE_ROWS)
            tag: str = await connection.execute(_Q["audit_prune"], mesh_id, before_ms, keep, PRUNE_ROWS)
            return int(tag.split()[-1])

        return await self._db.transaction(work)
