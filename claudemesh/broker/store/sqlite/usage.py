"""Usage of each member on SQLite: counts of rows and of stored bytes.

The count of stored bytes is kept by the transactions that write and delete bodies, so that reading it costs
one row for each member. `recount` compares it with the bodies themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.runtime.sqlite import Database

_RECOUNT_ROWS: Final = 2000
# The kinds of bodies, each with its queries.
_KINDS: Final = {
    "queue": ("newest_queue_body", "stored_queue_after"),
    "topic": ("newest_topic_body", "stored_topic_after"),
}


class SqliteUsage:
    """Implements `UsageStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def stored(self, mesh_id: str) -> Mapping[str, int]:
        return dict(await self._db.run(lambda raw: raw.execute(_Q["stored"], (mesh_id,)).fetchall()))

    async def recount(self) -> int:
        """Count again in small batches, and correct by the difference to what the counts were at the start.

        Bodies that are accepted meanwhile have greater ids; nothing else deletes bodies while a job runs.
        """
        known, ends = await self._db.run(_begin)
        found = dict.fromkeys(known, 0)
        for kind, (_, query) in _KINDS.items():
            after = ""
            while rows := await self._rows(query, after, ends[kind]):
                after = max(row[0] for row in rows)
                for _, mesh_id, member_id, size in rows:
                    key = (mesh_id, member_id, kind)
                    found[key] = found.get(key, 0) + size
        drift = [(*key, size - known.get(key, 0)) for key, size in found.items() if size != known.get(key, 0)]
        if drift:
            await self._db.transaction(lambda raw: raw.executemany(_Q["stored_add"], drift))
        return len(drift)

    async def topics_made(self, mesh_id: str, member_id: str) -> int:
        return await self._count("topics_made", mesh_id, member_id)

    async def subscriptions_held(self, mesh_id: str, member_id: str) -> int:
        return await self._count("subscriptions_held", mesh_id, member_id)

    async def invites_open(self, mesh_id: str, pubkey: str, now_ms: int) -> int:
        return await self._count("invites_open", mesh_id, pubkey, now_ms)

    async def _rows(self, query: str, after: str, end: str) -> list[Any]:
        values = (after, end, _RECOUNT_ROWS)
        return await self._db.run(lambda raw: raw.execute(_Q[query], values).fetchall())

    async def _count(self, query: str, *values: object) -> int:
        row = await self._db.run(lambda raw: raw.execute(_Q[query], values).fetchone())
        count: int = row[0]
        return count


def _begin(raw: sqlite3.Connection) -> tuple[dict[tuple[str, str, str], int], dict[str, str]]:
    """Return the counts, and up to which id the bodies are counted that they stand for."""
    known = {(row[0], row[1], row[2]): row[3] for row in raw.execute(_Q["stored_all"])}
    return known, {kind: raw.execute(_Q[newest]).fetchone()[0] for kind, (newest, _) in _KINDS.items()}
