"""The drain: priority, window, backoff, unknown outcomes (docs/spec/daemon.md, Drain)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.age import BrokerTime, OutboxClocks
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.carrier import ANSWER_DEADLINE_S
from claudemesh.daemon.outbox.drain import Drain, DrainHandlers
from claudemesh.daemon.outbox.pace import WINDOW
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.submissions import MAX_WAITING
from claudemesh.daemon.outbox.types import NewRow, Settlement, Submission, Turn
from claudemesh.protocol.frames import SendResult
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import TaskOwner
from tests.support.clock import ManualClock
from tests.support.daemon import new_ulid
from tests.support.waiting import WAIT_S

PAYLOAD = b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null}'


class Carrier:
    """A link that keeps what it is given; it can be down, and it answers when told."""

    def __init__(self) -> None:
        self.up = True
        self.sent: list[str] = []
        self.resets: list[str] = []
        self.stuck: asyncio.Event | None = None
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self.up

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        if not self.up:
            raise ConnectionError("down")
        self.sent.append(request_id)
        self._changed.set()
        if self.stuck is not None:
            await self.stuck.wait()

    async def send_envelopes(self, envelopes: Sequence[tuple[str, bytes]]) -> None:
        for request_id, envelope in envelopes:
            await self.send_envelope(request_id, envelope)

    def reset(self, reason: str) -> None:
        self.resets.append(reason)

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
        self.may_leave = True
        self._event = asyncio.Event()
        steady: Callable[[float, float], float] = lambda low, high: 1.0  # noqa: E731
        backoff = Backoff(0.5, 30, uniform=steady)
        self.lived = LivedClock(self.clock)
        self.conditions = Conditions(self.clock)
        self.clocks = OutboxClocks(self.clock, self.lived, BrokerTime(self.clock))
        self.body_limit = BodyLimit()
        self.drain = Drain(
            store,
            self.carrier,
            self.clocks,
            backoff,
            self.conditions,
            DaemonMetrics(),
            DrainHandlers(self._on_settled, may_leave=lambda: self.may_leave),
            self.body_limit,
        )

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
    tasks.start(bench.drain.carry(), "carry")
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


async def test_no_row_leaves_before_the_broker_was_asked_about_the_done_ones(tmp_path: Path) -> None:
    """Rows are accepted meanwhile, and leave in their order afterwards."""
    async with running(tmp_path) as bench:
        bench.may_leave = False
        ids = await bench.put(3)
        ids += await bench.put(3)
        assert bench.carrier.sent == []
        assert {row["status"] for row in [await bench.store.raw(row_id) for row_id in ids] if row} == {
            "pending"
        }
        bench.may_leave = True
        bench.drain.wake()
        await bench.carrier.wait_sent(6)
        assert bench.carrier.sent == ids


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
        assert (row["attempts"], row["due_lived_ms"]) == (1, bench.lived.now_ms() + 500)
        bench.clock.advance(seconds=1)
        bench.drain.wake()
        await bench.carrier.wait_sent(2)


async def test_it_waits_as_long_as_the_broker_asked(tmp_path: Path) -> None:
    """retry_after_ms wins over the backoff."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(row_id, 503, error="broker_busy", message="Later.", retry_after_ms=42_000)
        row = await bench.wait_status(row_id, "pending")
        assert row["due_lived_ms"] == bench.lived.now_ms() + 42_000


async def test_a_lost_link_makes_every_row_in_flight_pending_again(tmp_path: Path) -> None:
    """Their outcome is unknown; they are offered again at once when there is a link."""
    async with running(tmp_path) as bench:
        ids = await bench.put(3)
        await bench.carrier.wait_sent(3)
        bench.carrier.up = False
        bench.drain.link_down()
        for row_id in ids:
            row = await bench.wait_status(row_id, "pending")
            assert row["attempts"] == 1
        bench.carrier.up = True
        bench.drain.wake()
        await bench.carrier.wait_sent(6)
        assert sorted(bench.carrier.sent[3:]) == sorted(ids)


async def test_rows_keep_their_order_when_the_link_is_made_anew_during_a_commit(tmp_path: Path) -> None:
    """The rows of that commit stand behind the rows that were in flight on the lost link."""
    async with running(tmp_path) as bench:
        older = await bench.put(3)
        await bench.carrier.wait_sent(3)
        turn = bench.store.turn

        async def lose_the_link(*arguments: Any) -> Turn:
            done = await turn(*arguments)
            if done.taken:
                bench.store.turn = turn  # type: ignore[method-assign]
                bench.drain.link_down()
            return done

        bench.store.turn = lose_the_link  # type: ignore[method-assign]
        newer = await bench.put(2)
        await bench.carrier.wait_sent(8)
        assert bench.carrier.sent[3:] == [*older, *newer]


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
    """Only the faulty send gets the error."""
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


async def test_a_row_whose_answer_was_lost_is_sent_again_on_the_same_link(tmp_path: Path) -> None:
    """The broker's dedupe makes it free; a link that answers others is kept."""
    async with running(tmp_path) as bench:
        first, second = await bench.put(2)
        await bench.carrier.wait_sent(2)
        bench.answer(second, 201, broker_message_id=new_ulid(), history_id=1)
        await bench.wait_settled(1)
        bench.clock.advance(seconds=ANSWER_DEADLINE_S)
        bench.drain.wake()
        row = await bench.wait_status(first, "pending")
        assert row["last_error"].startswith("no_answer")
        bench.clock.advance(seconds=1)
        bench.drain.wake()
        await bench.carrier.wait_sent(3)
        assert bench.carrier.sent[2] == first
        bench.answer(first, 200, broker_message_id=new_ulid(), history_id=2, duplicate=True)
        await bench.wait_settled(2)
        assert bench.carrier.resets == []


async def test_a_link_on_which_nothing_is_answered_is_made_anew(tmp_path: Path) -> None:
    """After the second deadline without any answer in between."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        for sent in (1, 2):
            await bench.carrier.wait_sent(sent)
            assert bench.carrier.resets == []
            bench.clock.advance(seconds=ANSWER_DEADLINE_S)
            bench.drain.wake()
            await bench.wait_status(row_id, "pending")
            bench.clock.advance(seconds=2)
            bench.drain.wake()
        assert len(bench.carrier.resets) == 1


@pytest.mark.parametrize("hours", [-24 * 365, 24 * 365])
async def test_a_retry_is_not_held_up_by_a_wall_clock_that_is_set(tmp_path: Path, hours: int) -> None:
    """It waits for its backoff, in lived time."""
    async with running(tmp_path) as bench:
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(row_id, 503, error="storage_unavailable", message="Later.")
        await bench.wait_status(row_id, "pending")
        bench.clock.jump(hours=hours)
        bench.clock.advance(seconds=0.4)
        bench.drain.wake()
        [other] = await bench.put(1)
        await bench.carrier.wait_sent(2)
        assert bench.carrier.sent == [row_id, other]
        bench.clock.advance(seconds=0.1)
        bench.drain.wake()
        await bench.carrier.wait_sent(3)
        assert bench.carrier.sent[2] == row_id


async def test_a_rate_limit_holds_back_as_long_as_told_and_says_so(tmp_path: Path) -> None:
    """Nothing else is offered meanwhile, the refused row keeps its place, and the condition ends."""
    async with running(tmp_path) as bench:
        [limited] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(limited, 429, error="rate_limited", message="Wait.", retry_after_ms=42_000)
        row = await bench.wait_status(limited, "pending")
        assert (row["due_lived_ms"], bench.drain.held_s) == (0, 42.0)
        [shown] = bench.conditions.items()
        assert shown["code"] == "rate_limited"
        assert "42.0 s" in shown["message"]
        [later] = await bench.put(1)
        bench.clock.advance(seconds=41)
        [third] = await bench.put(1)
        assert bench.carrier.sent == [limited]
        bench.clock.advance(seconds=1)
        bench.drain.wake()
        await bench.carrier.wait_sent(4)
        assert bench.carrier.sent[1:] == [limited, later, third]
        bench.clock.advance(seconds=6)
        [last] = await bench.put(1)
        await bench.carrier.wait_sent(5)
        assert bench.conditions.items() == []
        assert bench.carrier.sent[4] == last


async def test_a_broker_that_takes_no_sends_is_a_condition_until_it_takes_one(tmp_path: Path) -> None:
    """It names the broker's reason. The sends stay pending."""
    async with running(tmp_path) as bench:
        [put_off] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.answer(put_off, 503, error="storage_unavailable", message="The database does not answer.")
        await bench.wait_status(put_off, "pending")
        [shown] = bench.conditions.items()
        assert shown["code"] == "sends_refused"
        assert "(storage_unavailable: The database does not answer)" in shown["message"]
        bench.clock.advance(seconds=1)
        bench.drain.wake()
        await bench.carrier.wait_sent(2)
        assert bench.conditions.holds("sends_refused")
        bench.answer(put_off, 201, broker_message_id=new_ulid(), history_id=1)
        await bench.wait_settled(1)
        assert bench.conditions.items() == []


async def test_the_condition_of_refused_sends_ends_when_none_waits(tmp_path: Path) -> None:
    """The last one that waited was dropped, or died."""
    async with running(tmp_path) as bench:
        refused, other = await bench.put(2)
        await bench.carrier.wait_sent(2)
        bench.answer(other, 503, error="storage_unavailable", message="Later.")
        await bench.wait_status(other, "pending")
        assert bench.conditions.holds("sends_refused")
        bench.answer(refused, 403, error="not_a_member", message="No.")
        await bench.wait_settled(1)
        assert bench.conditions.holds("sends_refused")
        bench.clock.advance(seconds=1)
        bench.drain.wake()
        await bench.carrier.wait_sent(3)
        bench.answer(other, 403, error="not_a_member", message="No.")
        await bench.wait_settled(2)
        assert bench.conditions.items() == []


async def test_a_row_over_the_negotiated_size_dies_unsent_and_its_neighbours_leave(tmp_path: Path) -> None:
    """The reason names both sizes."""
    async with running(tmp_path) as bench:
        bench.carrier.up = False
        [small] = await bench.put(1)
        body = base64.b64encode(bytes(3000))
        large = NewRow(new_ulid(), b'{"body":"%b"}' % body, 0, 0)
        assert (await bench.drain.submit(Submission(large.id, bytes(32), large))).status == 202
        bench.body_limit.agree(2048)
        bench.carrier.up = True
        bench.drain.wake()
        await bench.carrier.wait_sent(1)
        await bench.wait_settled(1)
        assert bench.carrier.sent == [small]
        row = await bench.store.raw(large.id)
        assert row is not None
        assert (row["status"], row["attempts"]) == ("dead", 0)
        assert row["last_error"].startswith("payload_too_large: The sealed message has 3000 bytes")
        assert "2048" in row["last_error"]


async def test_a_slow_link_holds_up_no_acceptance(tmp_path: Path) -> None:
    """Sends are written and answered while an envelope waits for the socket."""
    async with running(tmp_path) as bench:
        bench.carrier.stuck = asyncio.Event()
        await bench.put(1)
        await bench.carrier.wait_sent(1)
        await asyncio.wait_for(bench.put(3), WAIT_S)
        bench.carrier.stuck.set()
        await bench.carrier.wait_sent(4)


async def test_ages_are_judged_by_lived_time_and_the_broker_s(tmp_path: Path) -> None:
    """A row that was sent dies when the broker may have forgotten it, even if this machine was off."""
    async with running(tmp_path) as bench:
        bench.clocks.broker.heard(1_000_000)
        [row_id] = await bench.put(1)
        await bench.carrier.wait_sent(1)
        bench.carrier.up = False
        bench.drain.link_down()
        await bench.wait_status(row_id, "pending")
        row = await bench.store.raw(row_id)
        assert row is not None
        assert (row["first_sent_broker_ms"], row["lived_ms"]) == (1_000_000, bench.lived.now_ms())
        assert await bench.store.expire(bench.lived.now_ms(), 1_000_000, 10) == []
        [expired] = await bench.store.expire(0, 1_000_001, 10)
        assert expired.id == row_id
