"""Pages of members' histories on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial

import orjson

from claudemesh.broker.store.history import (
    BEYOND,
    READ_ROWS,
    HistoryPage,
    HistoryWanted,
    Source,
    clip,
    within,
)
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import DueDelivery
from claudemesh.runtime.sqlite import Database

_FORWARD = {"to": _Q["history_to"], "from": _Q["history_from"], "taken": _Q["history_taken"]}
_BACKWARD = {family: statement.replace(" ASC ", " DESC ") for family, statement in _FORWARD.items()}


class SqliteHistory:
    """Implements `HistoryStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def page(self, wanted: HistoryWanted) -> HistoryPage:
        def work(raw: sqlite3.Connection) -> tuple[list[int], int]:
            pruned = raw.execute(_Q["history_pruned"], (wanted.mesh_id,)).fetchone()
            ids = _ids(raw, clip(_sources(raw, wanted), wanted), wanted)
            return ids, 0 if pruned is None else int(pruned[0])

        ids, pruned = await self._db.run(work)
        taken: list[DueDelivery] = []
        more, used = len(ids) > wanted.limit, 0
        ids = ids[: wanted.limit]
        for start in range(0, len(ids), READ_ROWS):
            rows = await self._db.run(partial(_rows, ids=ids[start : start + READ_ROWS]))
            rows.sort(key=lambda row: row.history_id, reverse=not wanted.forward)
            count = within(rows, used, wanted.max_bytes)
            if not taken:
                count = max(count, min(1, len(rows)))
            taken += rows[:count]
            used += sum(len(row.envelope) for row in rows[:count])
            if count < len(rows):
                more = True
                break
        return HistoryPage(sorted(taken, key=lambda row: row.history_id), more, pruned)


def _rows(raw: sqlite3.Connection, ids: list[int]) -> list[DueDelivery]:
    found = raw.execute(_Q["history_rows"], (orjson.dumps(ids).decode(),))
    return [DueDelivery(*row) for row in found if row[-1] is not None]


def _ids(raw: sqlite3.Connection, sources: list[Source], wanted: HistoryWanted) -> list[int]:
    """Return the first ids in the direction of reading, and one more than the page may have."""
    statements = _FORWARD if wanted.forward else _BACKWARD
    count = wanted.limit + 1

    def read(source: Source, limit: int) -> list[int]:
        values = (wanted.mesh_id, source.kind, source.ref, source.member_id, source.low, source.high, limit)
        return [row[0] for row in raw.execute(statements[source.family], values)]

    heads = [(head[0], index) for index, one in enumerate(sources) if (head := read(one, 1))]
    # Each source has one id at least, so those with the nearest heads fill the page.
    heads = sorted(heads, reverse=not wanted.forward)[:count]
    found = {history_id for _, index in heads for history_id in read(sources[index], count)}
    return sorted(found, reverse=not wanted.forward)[:count]


def _sources(raw: sqlite3.Connection, wanted: HistoryWanted) -> Iterator[Source]:
    mesh_id, member_id = wanted.mesh_id, wanted.member_id
    kind, ref = wanted.destination or (None, None)
    if kind == "dm":
        row = raw.execute(_Q["member_by_key"], (mesh_id, ref)).fetchone()
        if row is not None:
            yield from _dms(member_id, _keys(raw, mesh_id, row[0]))
            yield from _dms(row[0], _keys(raw, mesh_id, member_id))
        return
    if kind is None:
        for key in _keys(raw, mesh_id, member_id):
            yield Source("to", "dm", key, "", 0, BEYOND)
        sent = raw.execute(_Q["history_refs_sent"], (mesh_id, member_id)).fetchall()
        yield from _dms(member_id, [row[0] for row in sent])
    if kind in (None, "topic"):
        for topic, after, until in raw.execute(_Q["history_periods"], (mesh_id, member_id, ref)).fetchall():
            yield Source("to", "topic", topic, "", after, BEYOND if until is None else until + 1)
    if kind in (None, "queue"):
        queues = raw.execute(_Q["history_refs_taken"], (mesh_id, member_id)).fetchall()
        for (queue,) in queues:
            if ref in (None, queue):
                yield Source("taken", "queue", queue, member_id, 0, BEYOND)


def _keys(raw: sqlite3.Connection, mesh_id: str, member_id: str) -> list[str]:
    return [row[0] for row in raw.execute(_Q["history_keys"], (mesh_id, member_id))]


def _dms(sender: str, keys: list[str]) -> Iterator[Source]:
    for key in keys:
        yield Source("from", "dm", key, sender, 0, BEYOND)
