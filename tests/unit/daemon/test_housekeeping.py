"""Housekeeping: pending rows die of age while the broker's window is known, and old payloads go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from claudemesh.daemon.housekeeping import DONE_PAYLOAD_MS, Housekeeping
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.age import BrokerTime, OutboxClocks
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import Expired, NewRow, Settlement, Submission
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol.features import Features
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.lived import LivedClock
from tests.support.clock import ManualClock
from tests.support.values import replace
from tests.support.waiting import WAIT_S

FEATURES = Features("retention_scoped", 7, None, 262_144, 1 << 20, "prefer_newest", None, False)
MAX_AGE_H = 7 * 24 - 24
BROKER_MS = 1_790_000_000_000
PAYLOAD = b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null}'
ULID = "01HQXW5Z3Y8C6T0V9R4N2M7K1P"


class Bench:
    """Housekeeping over real databases; `expired` are the ids that it has told of."""

    def __init__(self, outbox: OutboxStore, inbox: InboxStore, clock: ManualClock, lived: LivedClock) -> None:
        self.outbox = outbox
        self.clock = clock
        self.clocks = OutboxClocks(clock, lived, BrokerTime(clock))
        self.expired: list[str] = []
        self.kept = 0
        self.clock_kept, self.died = asyncio.Event(), asyncio.Event()
        self.housekeeping = Housekeeping(
            outbox, inbox, self.clocks, DaemonSettings(), self._on_expired, self._keep_clock
        )

    def _on_expired(self, rows: Sequence[Expired]) -> None:
        self.expired += [row.client_message_id for row in rows]
        self.died.set()

    def _keep_clock(self) -> None:
        self.kept += 1
        self.clock_kept.set()

    def reach(self) -> None:
        """Let the broker be reached, which tells its time and its window."""
        self.clocks.broker.heard(BROKER_MS)
        self.housekeeping.link_up(FEATURES)

    async def submit(self, *ids: str) -> None:
        now = self.clocks.now()
        rows = [Submission(name, bytes(32), NewRow(f"row-{name}", PAYLOAD, 1, now.wall_ms)) for name in ids]
        await self.outbox.turn(rows, [], now, 0)

    async def settle(self, status: Status) -> None:
        """Take every ready row and write an outcome."""
        taken = (await self.outbox.turn([], [], self.clocks.now(), 100)).taken
        outcomes = [
            Settlement(row, status, broker_message_id=ULID, history_id=number)  # type: ignore[arg-type]
            for number, row in enumerate(taken)
        ]
        await self.outbox.turn([], outcomes, self.clocks.now(), 0)


@asynccontextmanager
async def bench(folder: Path) -> AsyncGenerator[Bench]:
    clock = ManualClock()
    lived = LivedClock(clock)
    outbox = await OutboxStore.open(folder / "outbox.db")
    inbox = await InboxStore.open(folder / "inbox.db", clock, None, lived)
    try:
        yield Bench(outbox, inbox, clock, lived)
    finally:
        await inbox.close()
        await outbox.close()


async def test_a_row_older_than_the_window_dies_and_a_younger_one_stays(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.submit("old")
        made.clock.advance(hours=1)
        await made.submit("young")
        made.reach()
        made.clock.advance(hours=MAX_AGE_H - 0.5)
        await made.housekeeping.expire()
        assert made.expired == ["old"]
        assert (await made.outbox.counts())["pending"] == 1


async def test_nothing_dies_while_the_broker_is_away(tmp_path: Path) -> None:
    """Before the first link no window is known; after a lost one it may have changed."""
    async with bench(tmp_path) as made:
        await made.submit("one")
        made.clock.advance(hours=10 * MAX_AGE_H)
        await made.housekeeping.expire()
        made.reach()
        made.housekeeping.link_down()
        await made.housekeeping.expire()
        assert made.expired == []


async def test_a_row_that_was_sent_is_also_judged_by_the_brokers_time(tmp_path: Path) -> None:
    """The lived clock stands still while the machine is off; the broker's does not."""
    async with bench(tmp_path) as made:
        made.reach()
        await made.submit("sent", "never")
        taken = (await made.outbox.turn([], [], made.clocks.now(), 1)).taken
        await made.outbox.turn([], [Settlement(taken[0], Status.PENDING, "link_lost")], made.clocks.now(), 0)
        made.clocks.broker.heard(BROKER_MS + (MAX_AGE_H + 1) * 3_600_000)
        await made.housekeeping.expire()
        assert made.expired == ["sent"]


async def test_more_rows_than_a_batch_all_die(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.submit(*[f"id-{number}" for number in range(1001)])
        made.reach()
        made.clock.advance(hours=MAX_AGE_H + 1)
        await made.housekeeping.expire()
        assert len(made.expired) == 1001
        assert await made.outbox.counts() == {"pending": 0, "inflight": 0, "dead": 1001}


async def test_payloads_of_done_rows_go_after_three_days_and_never_those_of_pending_ones(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        await made.submit("done")
        await made.settle(Status.DONE)
        await made.submit("pending")
        made.clock.advance(seconds=DONE_PAYLOAD_MS / 1000 + 1)
        await made.housekeeping.tidy()
        sizes = {}
        for name in ("done", "pending"):
            found = await made.outbox.find(name)
            assert found is not None
            sizes[name] = len(found[1])
        assert sizes == {"done": 0, "pending": len(PAYLOAD)}


async def test_settings_past_the_brokers_window_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.reach()
        with pytest.raises(ExitWith, match="reaches past the broker's dedupe window"):
            made.housekeeping.prepare(replace(DaemonSettings(), max_age_hours_override=7 * 24))
        await made.submit("one")
        made.clock.advance(hours=MAX_AGE_H + 1)
        await made.housekeeping.expire()
        assert made.expired == ["one"]


async def test_prepared_settings_hold_from_the_commit_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.reach()
        await made.submit("one")
        made.clock.advance(hours=2)
        commit = made.housekeeping.prepare(replace(DaemonSettings(), max_age_hours_override=1))
        await made.housekeeping.expire()
        assert made.expired == []
        commit()
        await made.housekeeping.expire()
        assert made.expired == ["one"]


async def test_settings_that_change_while_the_broker_is_away_hold_at_the_next_link(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.reach()
        made.housekeeping.link_down()
        made.housekeeping.prepare(replace(DaemonSettings(), max_age_hours_override=1))()
        await made.submit("one")
        made.clock.advance(hours=2)
        await made.housekeeping.expire()
        assert made.expired == []
        made.reach()
        await made.housekeeping.expire()
        assert made.expired == ["one"]


async def test_the_task_keeps_the_clock_and_works_at_once_when_the_broker_is_reached(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.submit("one")
        made.clock.advance(hours=MAX_AGE_H + 1)
        running = asyncio.create_task(made.housekeeping.run())
        try:
            async with asyncio.timeout(WAIT_S):
                await made.clock_kept.wait()
                made.reach()
                await made.died.wait()
        finally:
            running.cancel()
        assert (made.expired, made.kept) == (["one"], 2)
