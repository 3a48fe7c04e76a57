"""Work queues on SQLite: one transaction reads the subscribers and gives them what waits."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Iterator, Sequence, Set

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import DueDelivery
from claudemesh.runtime.sqlite import Database


class SqliteQueues:
    """Implements `QueueStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def subscriptions(self, mesh_id: str, member_id: str) -> Sequence[str]:
        values = (mesh_id, member_id)
        rows = await self._db.run(lambda raw: raw.execute(_Q["queue_subscriptions"], values).fetchall())
        return [row[0] for row in rows]

    async def waiting(self, mesh_id: str, queues: Sequence[str]) -> Collection[str]:
        values = (mesh_id, orjson.dumps(queues).decode())
        rows = await self._db.run(lambda raw: raw.execute(_Q["queues_waiting"], values).fetchall())
        return [row[0] for row in rows]

    async def take(
        self, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
    ) -> Sequence[tuple[str, DueDelivery]]:
        return await self._db.transaction(lambda raw: _take(raw, mesh_id, queue, member_ids, limit))

    async def release(self, mesh_id: str, member_id: str, connection_id: str, now_ms: int) -> Collection[str]:
        rows = await self._db.transaction(
            lambda raw: raw.execute(_Q["queue_release"], (mesh_id, member_id)).fetchall()
        )
        return {row[0] for row in rows}

    async def release_lost(self, now_ms: int) -> Collection[tuple[str, str]]:
        rows = await self._db.transaction(
            lambda raw: raw.execute(_Q["queue_release_lost"], (now_ms,)).fetchall()
        )
        return {(row[0], row[1]) for row in rows}


def _take(
    raw: sqlite3.Connection, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
) -> list[tuple[str, DueDelivery]]:
    """Give the oldest waiting messages of a queue, in turn, to those of these members that may take.

    A sealed message goes to a member with a wrap of its epoch.
    """
    allowed = {row[0] for row in raw.execute(_Q["topic_recipients"], (mesh_id, queue))}
    takers = [member_id for member_id in member_ids if member_id in allowed]
    if not takers:
        return []
    members = orjson.dumps(takers).decode()
    waiting = raw.execute(_Q["queue_waiting"], (mesh_id, queue, limit, members)).fetchall()
    epochs = orjson.dumps(sorted({row[1] for row in waiting if row[1] is not None})).decode()
    able = set(raw.execute(_Q["queue_key_holders"], (mesh_id, queue, epochs, members)).fetchall())
    raw.executemany(_Q["queue_give"], in_turn(waiting, takers, able))
    held = raw.execute(_Q["queue_held"], (orjson.dumps([row[0] for row in waiting]).decode(),))
    return [(row[0], DueDelivery(*row[1:])) for row in held]


def in_turn(
    waiting: Sequence[tuple[int, int | None]], takers: Sequence[str], able: Set[tuple[int | None, str]]
) -> Iterator[tuple[str, int]]:
    """Return the taker of each message. `able` holds the pairs of an epoch and a member with a wrap of it."""
    turn = deque(takers)
    for delivery_id, key_epoch in waiting:
        for taker in turn:
            if key_epoch is None or (key_epoch, taker) in able:
                yield taker, delivery_id
                turn.remove(taker)
                turn.append(taker)
                break
