"""Leases and last-seen times on SQLite."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import PresenceRow, Seen
from claudemesh.runtime.sqlite import Database


class SqlitePresence:
    """Implements `PresenceStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self, rows: Sequence[PresenceRow]) -> None:
        values = [
            (
                row.connection_id,
                row.member_id,
                row.mesh_id,
                row.broker_id,
                row.connected_at,
                row.lease_until,
                row.instance_id,
            )
            for row in rows
        ]
        await self._db.transaction(lambda raw: raw.executemany(_Q["presence_open"], values))

    async def renew(self, broker_id: str, lease_until: int) -> None:
        values = (lease_until, broker_id)
        await self._db.transaction(lambda raw: raw.execute(_Q["presence_renew"], values))

    async def close(self, connection_ids: Collection[str]) -> None:
        rows = [(connection_id,) for connection_id in connection_ids]
        await self._db.transaction(lambda raw: raw.executemany(_Q["presence_close"], rows))

    async def clear(self, broker_id: str) -> None:
        await self._db.transaction(lambda raw: raw.execute(_Q["presence_clear"], (broker_id,)))

    async def online(self, mesh_id: str, now_ms: int) -> frozenset[str]:
        rows = await self._db.run(
            lambda raw: raw.execute(_Q["presence_online"], (mesh_id, now_ms)).fetchall()
        )
        return frozenset(row[0] for row in rows)

    async def members_seen(self, seen: Sequence[Seen]) -> None:
        values = [(entry.at_ms, entry.host, entry.mesh_id, entry.member_id) for entry in seen]
        await self._db.transaction(lambda raw: raw.executemany(_Q["member_seen"], values))

    async def last_seen(self, mesh_id: str, member_ids: Collection[str]) -> Mapping[str, int]:
        values = (mesh_id, orjson.dumps(list(member_ids)).decode())
        return dict(await self._db.run(lambda raw: raw.execute(_Q["last_seen"], values).fetchall()))

    async def present_seen(self, broker_id: str, now_ms: int) -> None:
        await self._db.transaction(lambda raw: raw.execute(_Q["present_seen"], (now_ms, broker_id)))
