"""The embedded broker's accept with more members, subscribers and history, and with larger bodies.

Each row is the work of a second, beside the same with one: it tells whether the cost grows with the mesh or
with the work alone.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import partial

from benchmarks.accept import write_batch
from benchmarks.client import accepted, peer_of, pipelined
from benchmarks.lab import BODY, Lab, unlimit
from benchmarks.size import size
from tests.support.processes import Daemon, Mesh

MEMBERS = size(10_000, 60)
_BODIES = size(600, 20)
_POSTED = size(200_000, 400)
_INSERTED = 10_000


def members(lab: Lab) -> tuple[float, float]:
    """Messages/s in a mesh of 10,000 members; the other side has few."""
    crowded = lab.with_members(MEMBERS)
    return asyncio.run(pipelined(peer_of(crowded.daemons["rosa"])))[1], accepted(lab)


def subscribers(count: int, lab: Lab) -> tuple[float, float]:
    """Deliveries/s of posts to that many subscribers that are not connected; the other side has one."""
    return _deliveries(lab, count), _deliveries(lab, 1)


def _deliveries(lab: Lab, count: int) -> float:
    made = lab.shared("subscribed", partial(_subscribed, lab))
    posts = max(2, min(_POSTED // 100, _POSTED // count))
    owner = peer_of(made.daemons["rosa"])
    return count * asyncio.run(pipelined(owner, messages=posts, topic=f"of-{count}"))[1]


@contextmanager
def _subscribed(lab: Lab) -> Generator[Mesh]:
    """A mesh with topics of 1, 100 and 10,000 subscribers."""
    from tests.support.crowd import fill

    with lab.mesh("rosa") as made:
        made.broker.stop()
        path, mesh_id = made.broker.data / "broker.db", _mesh_id(made.daemons["rosa"])
        there = fill(path, mesh_id, MEMBERS, "member-")
        with closing(sqlite3.connect(path)) as raw, raw:
            unlimit(raw)
            now_ms = time.time_ns() // 1_000_000
            for count in {1, 100, 10_000}:
                raw.execute(
                    "INSERT INTO topic (mesh_id, name, mode, created_by, created_at) VALUES (?, ?, ?, ?, ?)",
                    (mesh_id, f"of-{count}", "topic", there[0].id, now_ms),
                )
                raw.executemany(
                    "INSERT INTO topic_subscription (mesh_id, topic, member_id, since) VALUES (?, ?, ?, ?)",
                    [(mesh_id, f"of-{count}", member.id, now_ms) for member in there[:count]],
                )
        made.broker.start()
        made.broker.ready()
        yield made


def bodies(lab: Lab) -> tuple[float, float]:
    """MiB/s of bodies of 100 KiB; the other side has bodies of 1 KiB."""
    owner = peer_of(lab.alice)
    large = asyncio.run(pipelined(owner, messages=_BODIES, body=BODY * 100))[1]
    return large * 100 / 1024, accepted(lab) / 1024


def history(count: int, lab: Lab) -> tuple[float, float]:
    """Messages/s with that many messages in the tables; the other side is without them."""
    grown = lab.shared(f"history of {count}", partial(_grown, lab, count))
    bare = lab.shared("history of 0", partial(_grown, lab, 0))
    return (
        asyncio.run(pipelined(peer_of(grown.daemons["rosa"])))[1],
        asyncio.run(pipelined(peer_of(bare.daemons["rosa"])))[1],
    )


@contextmanager
def _grown(lab: Lab, count: int) -> Generator[Mesh]:
    with lab.mesh("rosa") as made:
        made.broker.stop()
        member_id = json.loads((made.daemons["rosa"].root / "membership.json").read_text())["member_id"]
        path, mesh_id = made.broker.data / "broker.db", _mesh_id(made.daemons["rosa"])
        envelope = b"x" * 200
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            unlimit(raw)
            for first in range(1, count + 1, _INSERTED):
                rows = [(number, envelope) for number in range(first, min(first + _INSERTED, count + 1))]
                write_batch(raw, rows, mesh=mesh_id, sender=member_id)
        made.broker.start()
        made.broker.ready()
        yield made


def _mesh_id(daemon: Daemon) -> str:
    mesh_id: str = json.loads((daemon.root / "membership.json").read_text())["mesh_id"]
    return mesh_id
