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
PAYLOAD = b'{"destination_kind":"dm","destination_ref":"k","priority":"next","reply_to_id":null}'


# Rows by kind: status, end of the wait, topic whose key is waited for, and time at which it was done.
KINDS: dict[str, tuple[str, int, str | None, int | None]] = {
    "ready": ("pending", 0, None, None),
    "waiting": ("pending", 10**12, None, None),
    "without a key": ("pending", 4611686018427387904, "ops", None),
    "done": ("done", 0, None, 4000),
    "dead": ("dead", 0, None, None),
}


def fill(raw: sqlite3.Connection, count: int, kind: str) -> None:
    """Rows of one kind."""
    raw.execute("BEGIN")
    raw.executemany(
        "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, lived_ms,"
        " status, due_lived_ms, waiting_topic, done_lived_ms, priority, attempts, first_sent_broker_ms)"
        " VALUES (?1, ?1, x'00', ?6, 1000, 1000, ?2, ?3, ?4, ?5, 1, 1, 4000)",
        ((f"r{number:09d}", *KINDS[kind], PAYLOAD) for number in range(count)),
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


async def cost(path: Path, count: int, kind: str) -> dict[str, int]:
    """Return the steps of each operation with so many rows in the outbox."""
    store = await OutboxStore.open(path)
    try:
        await store._db.run(lambda raw: fill(raw, count, kind))
        await store.recover(AT.lived_ms, 10**15)
        aside, sends = ([Submission(name, bytes(32), NewRow(name, PAYLOAD, 0, 5000))] for name in "ab")
        return {
            "send while the broker is away": await steps(store, lambda: store.turn(aside, [], AT, 0)),
            "send": await steps(store, lambda: store.turn(sends, [], AT, 1)),
            "drain": await steps(store, lambda: store.turn([], [], AT, 16)),
            "retry": await steps(store, lambda: store.turn([], [], AT, 0)),
            "expire": await steps(store, lambda: store.expire(10, 10, 500)),
            "counts": await steps(store, store.counts),
            "oldest_pending": await steps(store, store.oldest_pending),
            "page": await steps(store, lambda: store.page(Status.PENDING, 10, None, newest_first=True)),
        }
    finally:
        await store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_send_costs_the_same_whatever_waits(tmp_path: Path, kind: str) -> None:
    """And so do the drain, expiry, health, metrics and a page of what is pending."""
    few = await cost(tmp_path / "few.db", FEW, kind)
    many = await cost(tmp_path / "many.db", MANY, kind)
    for name, counted in few.items():
        assert many[name] <= counted * 1.3, name
