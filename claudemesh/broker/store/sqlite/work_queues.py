"""Work queues on SQLite: who may take, and who gets what, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import cycle

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import DueDelivery


def subscriptions(raw: sqlite3.Connection, mesh_id: str, member_id: str) -> list[str]:
    """Return the queues that a member takes from."""
    return [row[0] for row in raw.execute(_Q["queue_subscriptions"], (mesh_id, member_id))]


def take(
    raw: sqlite3.Connection, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
) -> list[tuple[str, DueDelivery]]:
    """Give the oldest waiting messages of a queue, in turn, to those of these members that may take."""
    allowed = {row[0] for row in raw.execute(_Q["topic_recipients"], (mesh_id, queue))}
    takers = [member_id for member_id in member_ids if member_id in allowed]
    if not takers:
        return []
    waiting = [row[0] for row in raw.execute(_Q["queue_waiting"], (mesh_id, queue, limit))]
    raw.executemany(_Q["queue_give"], zip(cycle(takers), waiting, strict=False))
    held = raw.execute(_Q["queue_held"], (orjson.dumps(waiting).decode(),))
    return [(row[0], DueDelivery(*row[1:])) for row in held]
