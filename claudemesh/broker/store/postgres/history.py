"""Pages of members' histories on Postgres."""

from __future__ import annotations

from claudemesh.broker.store.history import (
    BEYOND,
    READ_ROWS,
    HistoryPage,
    HistoryWanted,
    Source,
    clip,
    within,
)
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import due_of, key_bytes
from claudemesh.broker.store.types import DueDelivery

_FORWARD = _Q["history_ids"]
_BACKWARD = _FORWARD.replace(" ASC ", " DESC ")


class PostgresHistory:
    """Implements `HistoryStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def page(self, wanted: HistoryWanted) -> HistoryPage:
        pruned = await self._db.fetch(_Q["history_pruned"], wanted.mesh_id)
        ids = await self._ids(clip(await self._sources(wanted), wanted), wanted)
        taken: list[DueDelivery] = []
        more, used = len(ids) > wanted.limit, 0
        ids = ids[: wanted.limit]
        for start in range(0, len(ids), READ_ROWS):
            rows = await self._rows(ids[start : start + READ_ROWS], forward=wanted.forward)
            count = within(rows, used, wanted.max_bytes)
            if not taken:
                count = max(count, min(1, len(rows)))
            taken += rows[:count]
            used += sum(len(row.envelope) for row in rows[:count])
            if count < len(rows):
                more = True
                break
        taken.sort(key=lambda row: row.history_id)
        return HistoryPage(taken, more, int(pruned[0][0]) if pruned else 0)

    async def _rows(self, ids: list[int], *, forward: bool) -> list[DueDelivery]:
        found = await self._db.fetch(_Q["history_rows"], ids)
        rows = [due_of(row) for row in found if row[8] is not None]
        return sorted(rows, key=lambda row: row.history_id, reverse=not forward)

    async def _ids(self, sources: list[Source], wanted: HistoryWanted) -> list[int]:
        """Return the first ids in the direction of reading, and one more than the page may have."""
        if not sources:
            return []
        columns = (
            [one.family for one in sources],
            [one.kind for one in sources],
            [one.ref for one in sources],
            [one.member_id for one in sources],
            [one.low for one in sources],
            [one.high for one in sources],
        )
        statement = _FORWARD if wanted.forward else _BACKWARD
        values = (wanted.mesh_id, *columns, wanted.limit + 1, wanted.forward)
        return [row[0] for row in await self._db.fetch(statement, *values)]

    async def _sources(self, wanted: HistoryWanted) -> list[Source]:
        mesh_id, member_id = wanted.mesh_id, wanted.member_id
        kind, ref = wanted.destination or (None, None)
        if kind == "dm" and ref is not None:
            found = await self._db.fetch(_Q["member_by_key"], mesh_id, key_bytes(ref))
            if not found:
                return []
            other = str(found[0]["id"])
            to = _dms(member_id, await self._keys(mesh_id, other))
            return to + _dms(other, await self._keys(mesh_id, member_id))
        sources: list[Source] = []
        if kind is None:
            own = await self._keys(mesh_id, member_id)
            sources += [Source("to", "dm", key, "", 0, BEYOND) for key in own]
            sent = await self._db.fetch(_Q["history_refs_sent"], mesh_id, member_id)
            sources += _dms(member_id, [row[0] for row in sent])
        if kind in (None, "topic"):
            sources += [
                Source("to", "topic", topic, "", after, BEYOND if until is None else until + 1)
                for topic, after, until in await self._db.fetch(
                    _Q["history_periods"], mesh_id, member_id, ref
                )
            ]
        if kind in (None, "queue"):
            queues = await self._db.fetch(_Q["history_refs_taken"], mesh_id, member_id)
            sources += [
                Source("taken", "queue", queue, member_id, 0, BEYOND)
                for (queue,) in queues
                if ref in (None, queue)
            ]
        return sources

    async def _keys(self, mesh_id: str, member_id: str) -> list[str]:
        return [row[0] for row in await self._db.fetch(_Q["history_keys"], mesh_id, member_id)]


def _dms(sender: str, keys: list[str]) -> list[Source]:
    return [Source("from", "dm", key, sender, 0, BEYOND) for key in keys]
