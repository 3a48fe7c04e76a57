"""Shares of members: counts of their rows and bytes, and the pruning of audit events.

The count of stored bytes is kept by the transactions that write and delete bodies: reading it costs a row for
each member. `recount` compares it with the bodies themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import PRUNE_ROWS
from claudemesh.runtime.sqlite import Database

_RECOUNT_ROWS: Final = 2000
# The kinds of bodies, each with its queries.
_KINDS: Final = {
    "queue": ("newest_queue_body", "stored_queue_after"),
    "topic": ("newest_topic_body", "stored_topic_after"),
}


class SqliteShares:
    """Implements `Shares`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def stored(self, mesh_id: str) -> Mapping[str, int]:
        """Return how many bytes of bodies each member has stored."""
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

    async def topic_known(self, mesh_id: str, topic: str) -> bool:
        """Whether there is a topic or queue of this name."""
        return await self._count("topic_known", mesh_id, topic) > 0

    async def topics_made(self, mesh_id: str, member_id: str) -> int:
        """Return how many topics and queues a member has created."""
        return await self._count("topics_made", mesh_id, member_id)

    async def subscriptions_held(self, mesh_id: str, member_id: str) -> int:
        """Return how many topics and queues a member is subscribed to."""
        return await self._count("subscriptions_held", mesh_id, member_id)

    async def invites_open(self, mesh_id: str, pubkey: str, now_ms: int) -> int:
        """Return how many invites of the member with this key can still be used."""
        return await self._count("invites_open", mesh_id, pubkey, now_ms)

    async def audit_prune(self, mesh_id: str, lived_ms: int, before_ms: int, keep: int) -> int:
        """Delete a batch of a mesh's oldest events."""

        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["audit_stamp"], (lived_ms, PRUNE_ROWS))
            return raw.execute(_Q["audit_prune"], (mesh_id, before_ms, keep, PRUNE_ROWS)).rowcount

        return await self._db.transaction(work)

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
