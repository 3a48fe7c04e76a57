"""Leases and last-seen times on Postgres."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import lease_columns
from claudemesh.broker.store.types import PresenceRow, Seen


class PostgresPresence:
    """Implements `PresenceStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def open(self, rows: Sequence[PresenceRow]) -> None:
        await self._db.execute(_Q["presence_open"], *lease_columns(rows))

    async def renew(self, broker_id: str, lease_until: int) -> None:
        await self._db.execute(_Q["presence_renew"], lease_until, broker_id)

    async def close(self, connection_ids: Collection[str]) -> None:
        await self._db.execute(_Q["presence_close"], list(connection_ids))

    async def clear(self, broker_id: str) -> None:
        await self._db.execute(_Q["presence_clear"], broker_id)

    async def online(self, mesh_id: str, now_ms: int) -> frozenset[str]:
        rows = await self._db.fetch(_Q["presence_online"], mesh_id, now_ms)
        return frozenset(str(row[0]) for row in rows)

    async def members_seen(self, seen: Sequence[Seen]) -> None:
        entries = sorted(seen, key=lambda entry: entry.member_id)
        await self._db.execute(
            _Q["members_seen"],
            [entry.mesh_id for entry in entries],
            [entry.member_id for entry in entries],
            [entry.at_ms for entry in entries],
            [entry.host for entry in entries],
        )

    async def last_seen(self, mesh_id: str, member_ids: Collection[str]) -> Mapping[str, int]:
        rows = await self._db.fetch(_Q["last_seen"], mesh_id, list(member_ids))
        return {str(row[0]): row[1] for row in rows}

    async def present_seen(self, broker_id: str, now_ms: int) -> None:
        await self._db.execute(_Q["present_seen"], now_ms, broker_id)
