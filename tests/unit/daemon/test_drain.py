"""The drain: priority, window, backoff, unknown outcomes (daemon.md, Drain)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.outbox.drain import MAX_WAITING, WINDOW, Drain
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.store import NewRow, OutboxStore, Settlement, Submission
from claudemesh.protocol.frames import SendResult
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.services import TaskOwner
from tests.support.clock import ManualClock
from tests.support.daemon import new_ulid

PAYLOAD = b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null}'


class Carrier:
    """A link that keeps what it is given; it can be down, and it answers when told."""

    def __init__(self) -> None:
        self.up = True
        self.sent: list[str] = []
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self.up

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        if not self.up:
            raise ConnectionError("down")
        self.sent.append(request_id)
        self._changed.set()

    async def wait_sent(self, count: int) -> None:
        """Return once so many envelopes have left."""
        while len(self.sent) < count:
            self._changed.clear()
            await self._changed.wait()


class Bench:
    """A drain on a real store with a carrier in hand."""

    def __init__(self, store: OutboxStore) -> None:
        self.store = store
        self.carrier = Carrier()
        self.clock = ManualClock()
        self.settled: list[Settlement] = []
        self._event = asyncio.Event()
        steady: Callable[[float, float], float] = lambda low, high: 1.0  # noqa: E731
        backoff = Backoff(0.5, 30, uniform=steady)
        self.drain = Drain(store, self.carrier, self.clock, backoff, self._on_settled)

    def _on_settled(self, settlement: Settlement) -> None:
        self.settled.append(settlement)
        self._event.set()

    async def put(self, count: int, priority: int = 1) -> list[str]:
        ids = [new_ulid() for _ in range(count)]
        rows = [NewRow(row_id, PAYLOAD, priority, self.clock.wall_ms()) for row_id in ids]
        submissions = [Submission(row.id, bytes(32), row) for row in rows]
        answers = await asyncio.gather(*(self.drain.submit(submission) for submission in submissions))
        assert {answer.status for answer in answers} == {202}
        return ids

    def answer(self, row_id: str, status: int, **fields: Any) -> None:
        self.drain.on_result(SendResult(row_id, status, fields))

    async def wait_settled(self, count: int) -> None:
        while len(self.settled) < count:
            self._event.clear()
            await self._event.wait()

    async def wait_status(self, row_id: str, status: str) -> dict[str, Any]:
        """Poll the database: a retry is not announced."""
        while True:
            row = await self.store.raw(row_id)
            assert row is not None
            if row["status"] == status:
                return row


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncGenerator[Bench]:
    store = await OutboxStore.open(tmp_path / "outbox.db")
    bench = Bench(store)
    tasks = TaskOwner()
    tasks.start(bench.drain.run(), "drain")
    try:
        yield bench
    finally:
        await tasks.stop()
        await store.close()


async def test_an_accepted_row_becomes_done_with_the_brokers_ids(tmp_path: Path) -> None:
    """201 and 200 are done."""
    async with running(tmp_path) as bench:
        first, second = await bench.put(2)
        await bench.carrier.wait_sent(2)
        ids = {"broker_message_id": new_ulid(), "history_id": 7}
        bench.answer(first, 201, **ids, duplicate=False, client_message_id=first)
        bench.answer(second, 200, **ids, duplicate=True, client_message_id=second)
        await bench.wait_settled(2)
        for row_id in (first, second):
            row = await bench.store.raw(row_id)
            assert row is not None
            assert (row["status"], row["history_id"]) == ("done", 7)


async def test_at_most_a_window_is_in_flight(tmp_path: Path) -> None:
    """256 rows; an answer makes room for the next."""
    async with running(tmp_path) as bench:
        ids = await bench.put(WINDOW + 5)
        await bench.carrier.wait_sent(WINDOW)
        assert bench.drain.inflight == WINDOW
        assert bench.carrier.sent == ids[:WINDOW]
        bench.answer(ids[0], 201, broker_message_id=new_ulid(), history_id=1)
        await bench.carrier.wait_sent(WINDOW + 1)
        assert bench.carrier.sent[-1] == ids[WINDOW]


PERMANENT = [
    (400, "invalid_envelope"),
    (403, "not_a_member"),
    (404, "destination_not_found"),
    (413, "payload_too_large"),
    (422, "fingerprint_drift"),
    (409, "idempotency_key_reused"),
]
TRANSIENT = [(429, "rate_limited"), (503, "storage_unavailable"), (500, "internal_error"), (418, "new_code")]


@pytest.mark.parametrize(("status", "error"), PERMANENT)
async def test_a_permanent_refusal_makes_the_row_dead(tmp_path: Path, status: int, error: str) -> None:
    """Only the listed codes."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(row_id, status, error=error, message="No.")
        await bench.wait_settled(1)
        row = await bench.store.raw(row_id)
        assert row is not None
        assert (row["status"], row["last_error"]) == ("dead", f"{error}: No.")


@pytest.mark.parametrize(("status", "error"), TRANSIENT)
async def test_anything_else_waits_and_is_tried_again(tmp_path: Path, status: int, error: str) -> None:
    """429, 5xx and codes that are not listed: back to pending, with backoff."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(row_id, status, error=error, message="Later.")
        row = await bench.wait_status(row_id, "pending")
        assert (row["attempts"], row["next_attempt_at"]) == (1, bench.clock.wall_ms() + 500)
        bench.clock.advance(seconds=1)
        bench.drain.wake()
        await bench.carrier.wait_sent(2)


async def test_it_waits_as_long_as_the_broker_asked(tmp_path: Path) -> None:
    """retry_after_ms wins over the backoff."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(row_id, 429, error="rate_limited", message="Later.", retry_after_ms=42_000)
        row = await bench.wait_status(row_id, "pending")
        assert row["next_attempt_at"] == bench.clock.wall_ms() + 42_000


async def test_a_lost_link_makes_every_row_in_flight_pending_again(tmp_path: Path) -> None:
    """Their outcome is unknown; they are offered again at once when there is a link."""
    async with running(tmp_path) as bench:
        ids = await bench.put(3)
        await bench.carrier.wait_sent(3)
        bench.carrier.up = False
        bench.drain.on_link_down()
        for row_id in ids:
            row = await bench.wait_status(row_id, "pending")
            assert row["attempts"] == 1
        bench.carrier.up = True
        bench.drain.wake()
        await bench.carrier.wait_sent(6)
        assert sorted(bench.carrier.sent[3:]) == sorted(ids)


async def test_a_result_for_a_row_that_is_not_in_flight_is_ignored(tmp_path: Path) -> None:
    """A late, doubled or invented result changes nothing."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer("01HQXW5Z3Y8C6T0V9R4N2M7K1P", 201, broker_message_id=new_ulid(), history_id=9)
        bench.answer(row_id, 201, broker_message_id=new_ulid(), history_id=1)
        bench.answer(row_id, 404, error="destination_not_found", message="Late.")
        await bench.wait_settled(1)
        row = await bench.store.raw(row_id)
        assert row is not None
        assert (row["status"], row["history_id"]) == ("done", 1)


async def test_finish_lets_answers_land_and_claims_nothing_more(tmp_path: Path) -> None:
    """SIGTERM: what is in flight is answered and written; new rows stay pending."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        finishing = asyncio.ensure_future(bench.drain.finish(10))
        await asyncio.sleep(0)
        [late] = await bench.put(1)
        bench.answer(row_id, 201, broker_message_id=new_ulid(), history_id=1)
        await finishing
        row, late_row = await bench.store.raw(row_id), await bench.store.raw(late)
        assert row is not None
        assert late_row is not None
        assert (row["status"], late_row["status"]) == ("done", "pending")


async def test_a_full_disk_refuses_new_sends_answers_known_ones_and_heals(tmp_path: Path) -> None:
    """507 and nothing kept; retries are answered; once there is space it goes on by itself."""
    async with running(tmp_path) as bench:
        [known] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        await bench.store._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 1"))
        row = NewRow(new_ulid(), b"x" * 100_000, 1, bench.clock.wall_ms())
        new = Submission(row.id, bytes(32), row)
        retry = Submission(known, bytes(32), row)
        answers = await asyncio.gather(bench.drain.submit(new), bench.drain.submit(retry))
        assert [answer.status for answer in answers] == [507, 202]
        await bench.store._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 100000"))
        assert (await bench.drain.submit(new)).status == 202


async def test_one_bad_send_does_not_sink_its_neighbours(tmp_path: Path) -> None:
    """Only the culprit hears of its error."""
    async with running(tmp_path) as bench:
        [first] = await bench.put(1)
        clash = Submission("another id", bytes(32), NewRow(first, PAYLOAD, 1, bench.clock.wall_ms()))
        fine = NewRow(new_ulid(), PAYLOAD, 1, bench.clock.wall_ms())
        outcomes = await asyncio.gather(
            bench.drain.submit(clash),
            bench.drain.submit(Submission(fine.id, bytes(32), fine)),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], Exception)
        assert isinstance(outcomes[1], Answer)
        assert outcomes[1].status == 202


async def test_more_than_the_bound_is_refused_at_once(tmp_path: Path) -> None:
    """The queue of sends is bounded."""
    store = await OutboxStore.open(tmp_path / "outbox.db")
    bench = Bench(store)
    row = NewRow(new_ulid(), PAYLOAD, 1, 0)
    waiting = [bench.drain.submit(Submission(row.id, bytes(32), row)) for _ in range(MAX_WAITING)]
    with pytest.raises(Overloaded):
        bench.drain.submit(Submission(row.id, bytes(32), row))
    assert len(waiting) == MAX_WAITING
    await store.close()
