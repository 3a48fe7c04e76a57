"""The embedded broker's accept, over WebSocket: pipelined, acknowledged, one delivery each."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import orjson

from benchmarks.lab import BODY, Lab
from benchmarks.size import size
from claudemesh.broker.store.sqlite.queries import QUERIES
from claudemesh.client.broker import BrokerClient
from claudemesh.protocol.keys import Identity
from claudemesh.runtime.migrations import load_migrations
from tests.support.broker import join_mesh
from tests.support.processes import Daemon
from tests.support.wspeer import Link, Peer, make_invite, new_id

_MESSAGES = size(6000, 256)
_WINDOW = 512
_BATCH = 128


def rate(lab: Lab) -> tuple[float, float]:
    """Messages/s of the broker, and of a script that writes the same rows. The recipient is not connected."""
    envelopes, measured = asyncio.run(pipelined(peer_of(lab.alice)))
    return measured, _by_a_script(lab.live.root / "script.db", envelopes)


def peer_of(daemon: Daemon) -> Peer:
    """The member that a daemon is."""
    membership = orjson.loads((daemon.root / "membership.json").read_bytes())
    identity = Identity.from_json(orjson.loads((daemon.root / "keypair.json").read_bytes()))
    return Peer(
        membership["name"],
        identity,
        membership["mesh_id"],
        membership["slug"],
        membership["member_id"],
        membership["broker_url"],
        BrokerClient(membership["broker_url"]).challenge().key,
    )


async def pipelined(
    owner: Peer, *, messages: int = _MESSAGES, window: int = _WINDOW, topic: str | None = None
) -> tuple[list[bytes], float]:
    """Send through a broker, from a new member to another, or to a topic, with `window` in flight.

    Returns the envelopes, and messages/s.
    """
    sender, absent = [await join_mesh(owner, f"m-{new_id()}", invite=make_invite(owner)) for _ in range(2)]
    sealed = BODY + "x" * 16
    envelopes = [sender.envelope(topic or absent, sealed) for _ in range(messages)]
    frames = [
        orjson.dumps({"type": "send", "id": number, "envelope": envelope}).decode()
        for number, envelope in enumerate(envelopes)
    ]
    async with sender.connect() as link:
        if topic is not None:
            await link.have_key(topic)
        await link.settle()
        started = time.perf_counter()
        await _pipeline(link, frames, window)
        measured = messages / (time.perf_counter() - started)
    return [orjson.dumps(envelope) for envelope in envelopes], measured


async def _pipeline(link: Link, frames: list[str], window: int) -> None:
    free = asyncio.Semaphore(window)

    async def read() -> None:
        waiting = len(frames)
        while waiting:
            result = orjson.loads(await link.websocket.recv())
            if result["type"] == "send_result":
                assert result["status"] == 201, result
                waiting -= 1
                free.release()

    reading = asyncio.create_task(read())
    for frame in frames:
        await free.acquire()
        await link.websocket.send(frame)
    await reading


def _by_a_script(path: Path, envelopes: list[bytes]) -> float:
    """Dedupe, body, history and delivery rows, nothing checked, synchronous=FULL."""
    path.unlink(missing_ok=True)
    schema = load_migrations("claudemesh.broker.store.sqlite.migrations")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        for migration in schema:
            database.executescript(migration.sql)
        started = time.perf_counter()
        for first in range(0, len(envelopes), _BATCH):
            _write_batch(database, list(enumerate(envelopes))[first : first + _BATCH])
        return len(envelopes) / (time.perf_counter() - started)


def _write_batch(database: sqlite3.Connection, batch: list[tuple[int, bytes]]) -> None:
    mesh, sender, ref, now, sql = "m" * 36, "s" * 36, "r" * 64, 1_800_000_000_000, QUERIES
    rows = [(number, f"{number:026}", envelope) for number, envelope in batch]
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        sql["accept_dedupe"],
        [(mesh, own, own, number, b"f" * 32, "dm", ref, sender, now, now) for number, own, _ in rows],
    )
    database.executemany(
        sql["accept_queue_body"],
        [(own, mesh, own, "dm", ref, sender, envelope, now, None) for _, own, envelope in rows],
    )
    database.executemany(
        sql["accept_history"], [(number, own, mesh, "dm", ref, sender, now) for number, own, _ in rows]
    )
    database.executemany(
        sql["accept_delivery"], [(number, own, mesh, sender, 1, now, None) for number, own, _ in rows]
    )
    database.execute("COMMIT")
