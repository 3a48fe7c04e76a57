"""The first post to a topic with many subscribers: its key is made and wrapped for each of them."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

from benchmarks.lab import BODY, Lab, unlimit
from benchmarks.size import size
from tests.support.crowd import fill
from tests.support.processes import Mesh, mesh, until

_SUBSCRIBERS = size(2_000, 10)
_LONGEST_S = 120.0


def first(_: Lab) -> tuple[float, float]:
    """Seconds from the post until the broker has it and a wrap for each subscriber; aim: 2 s."""
    with mesh("rosa", start=False) as made:
        made.broker.stop()
        _subscribe(made)
        made.broker.start()
        made.broker.ready()
        rosa = made.daemons["rosa"]
        rosa.start()
        rosa.ready()
        with closing(sqlite3.connect(f"file:{made.broker.data}/broker.db?mode=ro", uri=True)) as database:
            started = time.perf_counter()
            status, answer = rosa.post("crowd", BODY)
            assert status == 202, answer
            until(lambda: _wraps_and_posts(database) == (_SUBSCRIBERS + 1, 1), "all can read it", _LONGEST_S)
            return time.perf_counter() - started, 2.0


def _subscribe(made: Mesh) -> None:
    path = made.broker.data / "broker.db"
    mesh_id = json.loads((made.daemons["rosa"].root / "membership.json").read_text())["mesh_id"]
    members = fill(path, mesh_id, _SUBSCRIBERS, "member-")
    with closing(sqlite3.connect(path)) as raw, raw:
        unlimit(raw)
        now_ms = time.time_ns() // 1_000_000
        raw.execute(
            "INSERT INTO topic (mesh_id, name, mode, created_by, created_at) VALUES (?, ?, ?, ?, ?)",
            (mesh_id, "crowd", "topic", members[0].id, now_ms),
        )
        raw.executemany(
            "INSERT INTO topic_subscription (mesh_id, topic, member_id, since) VALUES (?, 'crowd', ?, ?)",
            [(mesh_id, member.id, now_ms) for member in members],
        )


def _wraps_and_posts(database: sqlite3.Connection) -> tuple[int, int]:
    found: tuple[int, int] = database.execute(
        "SELECT (SELECT count(*) FROM topic_wrap), (SELECT count(*) FROM topic_message)"
    ).fetchone()
    return found
