"""The cost of the outbox does not grow with what waits: counted in steps of SQLite, not in seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Submission

AT = Now(5000, 5000, 5000)
FEW, MANY = 1_000, 30_000


def fill(raw: sqlite3.Connection, count: int, due_lived_ms: int) -> None:
    """Rows that are pending: ready (0), or waiting for a retry."""
    raw.execute("BEGIN")
    raw.executemany(
        "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, lived_ms,"
        " due_lived_ms, status, priority, attempts, first_sent_broker_ms)"
        " VALUES (?1, ?1, x'00', x'', 1000, 1000, ?2, 'pending', 1, 1, 4000)",
        ((f"r{number:09d}", due_lived_ms) for number in range(count)),
    )
    raw.execute("COMMIT")


async def steps(store: OutboxStore, work: Callable[[], Awaitable[object]]) -> int:
    """Count the machine's steps while something is done."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    await store._db.run(lambda raw: raw.set_progress_handler(count, 1))
    await work()
    await store._db.run(lambda raw: raw.set_progress_handler(None, 0))
    return counted


async def cost(path: Path, count: int, due_lived_ms: int) -> dict[str, int]:
    """Return the steps of each operation with so many rows in the outbox."""
    store = await OutboxStore.open(path)
    try:
        await store._db.run(lambda raw: fill(raw, count, due_lived_ms))
        await store.recover(AT.lived_ms, 10**15)
        sends = [Submission("new", bytes(32), NewRow("new", b"{}", 0, 5000))]
        return {
            "send": await steps(store, lambda: store.turn(sends, [], AT, 1)),
            "retry": await steps(store, lambda: store.turn([], [], AT, 0)),
            "expire": await steps(store, lambda: store.expire(10, 10, 500)),
            "counts": await steps(store, store.counts),
            "oldest_pending": await steps(store, store.oldest_pending),
            "page": await steps(store, lambda: store.page(Status.PENDING, 10, None, newest_first=True)),
        }
    finally:
        await store.close()


@pytest.mark.parametrize("due_lived_ms", [0, 10**12], ids=["ready", "waiting"])
async def test_a_send_costs_the_same_whatever_waits(tmp_path: Path, due_lived_ms: int) -> None:
    """And so do expiry, health, metrics and a page of what is pending."""
    few = await cost(tmp_path / "few.db", FEW, due_lived_ms)
    many = await cost(tmp_path / "many.db", MANY, due_lived_ms)
    for name, counted in few.items():
        assert many[name] <= counted * 1.3, name
