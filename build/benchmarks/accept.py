"""The embedded broker's accept, over WebSocket: pipelined, acknowledged, one delivery each."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.client import peer_of, pipelined
from benchmarks.lab import Lab
from claudemesh.broker.store.sqlite.queries import QUERIES
from claudemesh.runtime.migrations import load_migrations

_BATCH = 128


def rate(lab: Lab) -> tuple[float, float]:
    """Messages/s of the broker, and of a script that writes the same rows. The recipient is not connected."""
    envelopes, measured = asyncio.run(pipelined(peer_of(lab.alice)))
    return measured, _by_a_script(lab.live.root / "script.db", envelopes)


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
            write_batch(database, list(enumerate(envelopes))[first : first + _BATCH])
        return len(envelopes) / (time.perf_counter() - started)


def write_batch(
    database: sqlite3.Connection,
    batch: list[tuple[int, bytes]],
    *,
    mesh: str = "m" * 36,
    sender: str = "s" * 36,
) -> None:
    """Write numbered envelopes as accepted messages to one recipient, in one transaction."""
    ref, now, sql = "r" * 64, 1_800_000_000_000, QUERIES
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
