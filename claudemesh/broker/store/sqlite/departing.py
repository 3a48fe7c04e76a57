"""Departed members on SQLite."""

from __future__ import annotations

import sqlite3

import orjson

from claudemesh.broker.store.departing import BATCH_DELIVERIES, BATCH_MEMBERS, Departed, following
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.runtime.sqlite import Database


class SqliteDeparted:
    """Implements `DepartedStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def forget(self, mesh_id: str, after: int, up_to: int) -> Departed:
        return await self._db.transaction(lambda raw: _forget(raw, mesh_id, after, up_to))


def _forget(raw: sqlite3.Connection, mesh_id: str, after: int, up_to: int) -> Departed:
    rows = raw.execute(_Q["departed"], (mesh_id, after, BATCH_MEMBERS)).fetchall()
    if not rows:
        return Departed(0, None)
    ids = orjson.dumps([row[0] for row in rows]).decode()
    raw.execute(_Q["departed_unsubscribe"], (ids,))
    owed = raw.execute(_Q["departed_deliveries"], (ids, BATCH_DELIVERIES)).rowcount
    old = {member_id: version for member_id, version in rows if version <= up_to}
    wanted = orjson.dumps(list(old)).decode()
    done = [row[0] for row in raw.execute(_Q["departed_done"], (mesh_id, wanted))]
    if done:
        going = [(mesh_id, member_id) for member_id in done]
        raw.executemany(_Q["departed_stored"], going)
        raw.executemany(_Q["departed_forget"], going)
        raw.execute(_Q["departed_tokens"], (mesh_id, max(old[member_id] for member_id in done)))
    return Departed(len(done), following(after, [row[1] for row in rows], owed))
