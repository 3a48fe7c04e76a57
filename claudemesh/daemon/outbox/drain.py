"""Drain: the outbox's loop. It writes sends, sends envelopes, writes results (docs/spec/daemon.md, Drain).

Each turn is one transaction, shared by all requests that arrived during the last commit. A send that meets
an open link is inserted and taken by the same commit, so it costs one commit before it is acknowledged and
on its way. A separate task sends envelopes, so a slow link delays no commit.

Every wait is measured by the host-lived or the monotonic clock. A row in flight has a deadline. After it,
the row is sent again, because the answer may be lost. The broker recognises a duplicate.

Crash story: a row is on disk before its caller is answered, `inflight` on disk before its envelope leaves,
and `done` on disk before it is published. A row that is in flight when the process or the link dies has an
unknown outcome. It becomes pending and is sent again; the broker recognises a duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from claudemesh.daemon.outbox.age import OutboxClocks
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.carrier import ANSWER_DEADLINE_S, Carrier
from claudemesh.daemon.outbox.pace import Pace
from claudemesh.daemon.outbox.refusals import Refusals
from claudemesh.daemon.outbox.states import Answer, Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.submissions import SubmissionQueue, WaitingSend, answer, fail
from claudemesh.daemon.outbox.types import Settlement, Submission, TakenRow
from claudemesh.daemon.outbox.window import Window
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import Dead, Done, classify
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageBroken, StorageError, StorageFull, StorageUnavailable
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger

log = get_logger("drain")

_STORAGE_RETRY_S = 1.0
# Number of consecutive missed deadlines, without an answer in between, after which the link is reset.
_SILENT_DEADLINES = 2


class DrainMetrics(Protocol):
    """The metrics that the drain counts."""

    def unanswered(self, count: int) -> None:
        """Count sends that were not answered before their deadline."""
        ...

    def rate_limited(self) -> None:
        """Count a send that the broker refused for its rate limit."""
        ...


class DrainHandlers(Struct, frozen=True):
    """Callbacks of the drain.

    `on_storage` gets the error of a failed commit, and None after one that succeeded. `may_come_back` returns
    whether a refusal may be temporary, after a restore of the broker. `may_leave` returns whether the broker
    has told of the newest done sends on this link. `refused_key` returns the topic with whose present key a
    refused row is to be sealed again, or None; `row_waits` is called when that row waits on the disk.
    """

    on_settled: Callable[[Settlement], None]
    on_storage: Callable[[StorageError | None], None] = lambda error: None
    may_come_back: Callable[[str], bool] = lambda error: False
    may_leave: Callable[[], bool] = lambda: True
    refused_key: Callable[[TakenRow, str], str | None] = lambda row, error: None
    row_waits: Callable[[str], None] = lambda topic: None
    # For traces: rows that leave, and what has become of each, also when it waits again.
    on_taken: Callable[[Sequence[TakenRow]], None] = lambda rows: None
    on_outcome: Callable[[Settlement], None] = lambda settlement: None


class Drain:
    """Writes sends, keeps a window of rows in flight while the link is open, and writes their outcomes.

    `run` and `carry` are its two tasks. Rows over the agreed limit of a body die unsent.
    """

    def __init__(
        self,
        store: OutboxStore,
        carrier: Carrier,
        clocks: OutboxClocks,
        backoff: Backoff,
        conditions: Conditions,
        metrics: DrainMetrics,
        handlers: DrainHandlers,
        body_limit: BodyLimit,
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._clocks = clocks
        self.backoff = backoff
        self._refusals = Refusals(conditions, clocks.clock)
        self._metrics = metrics
        self._handlers = handlers
        self._waiting = SubmissionQueue()
        self._window = Window()
        self._pace = Pace()
        self._results: list[Settlement] = []
        self._wake = asyncio.Event()
        self._leave = asyncio.Event()
        self._idle = asyncio.Event()
        self._next_due: int | None = None
        self._storage_retry_s: float | None = None
        self._stopping = self._over = False
        self._silent = 0
        self._body_limit = body_limit
        self._is_held = False

    @property
    def inflight(self) -> int:
        """The number of rows that wait for the broker's answer."""
        return len(self._window)

    @property
    def held_s(self) -> float:
        """Seconds until the broker's rate limit lets the next send leave; 0 when no send is held back."""
        now_s = self._clocks.monotonic()
        return (self._pace.held_until(now_s) or now_s) - now_s

    def submit(self, submission: Submission) -> asyncio.Future[Answer]:
        """Queue a send. Raise `Overloaded` when 8192 wait already, `StorageBroken` after the last turn.

        Cancelling the future does not undo the send, which may be part of a commit already.
        """
        if self._over:
            raise StorageBroken("nothing more is written")
        future = self._waiting.add(submission)
        self._wake.set()
        return future

    def wake(self) -> None:
        """Start a turn: a row was written by other means, or the link is open."""
        self._wake.set()

    def hold(self) -> None:
        """Take no rows until `release`: rows that an earlier run left in flight are not pending again."""
        self._is_held = True

    def release(self) -> None:
        """Take rows again."""
        self._is_held = False
        self.wake()

    def on_result(self, result: SendResult) -> None:
        """Queue the broker's result for a row. A result for a row that is not in flight is ignored."""
        row = self._window.answered(str(result.id))
        if row is None:
            return
        self._silent = 0
        self._results.append(self._settlement(row, result))
        self._wake.set()
        self._leave.set()

    def link_down(self, close_code: int = 0) -> None:
        """Make every row in flight pending: its outcome is unknown, and it is sent again on the next link.

        `close_code` is the broker's, 0 without one. 1009: it does not take a frame (outbox/window.py).
        """
        self._silent = 0
        lost = self._window.lost(close_code, self._clocks.monotonic())
        for row in lost.again:
            self._results.append(Settlement(row, Status.PENDING, "link_lost"))
        for row in lost.later:
            self._results.append(self._later(row, "link_lost"))
        if lost.culprit is not None:
            self._results.append(Settlement(lost.culprit, Status.DEAD, _frame_refused(lost.culprit)))
        self._wake.set()

    async def run(self) -> None:
        """Run turns until cancelled, or until the storage is broken."""
        try:
            while True:
                self._wake.clear()
                self._give_up_waiting()
                if self._pace.recover(self._clocks.monotonic()):
                    self._refusals.limit_ended()
                await self._turn(self._waiting.take())
                if not (self._window or self._results or self._waiting):
                    self._idle.set()
                if not self._wake.is_set() and not self._waiting:
                    await self._rest()
        finally:
            self._over = True
            self._waiting.fail(StorageBroken("nothing more is written"))
            self._idle.set()

    async def carry(self) -> None:
        """Send the envelopes of taken rows until cancelled."""
        while True:
            self._leave.clear()
            await self._carry_all()
            await self._leave.wait()

    async def finish(self, timeout_s: float) -> None:
        """Take no more rows, and wait up to `timeout_s` until the rows in flight are answered and written."""
        self._stopping = True
        if self._over:
            return
        self._idle.clear()
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.info("drain_unfinished", inflight=len(self._window))

    def _free(self) -> int:
        if self._stopping or self._is_held or not self._carrier.connected or self._window.isolating:
            return 0
        if not self._handlers.may_leave():
            return 0
        return self._pace.free(len(self._window), self._clocks.monotonic())

    async def _turn(self, batch: list[WaitingSend]) -> None:
        self._storage_retry_s = None
        results, self._results = self._results, []
        free, losses = self._free(), self._window.losses
        if not (batch or results or free):
            self._next_due = None
            return
        submissions = [waiting.submission for waiting in batch]
        try:
            limit = self._body_limit.agreed
            turn = await self._store.turn(submissions, results, self._clocks.now(), free, limit)
        except StorageUnavailable as error:
            self._handlers.on_storage(error)
            self._put_off(results)
            await self._answer_anyway(batch, error)
            return
        except StorageBroken as error:
            fail(batch, error)
            raise
        except Exception as error:
            log.error("turn_failed", error=repr(error), exc_info=error)
            self._put_off(results)
            await self._one_by_one(batch, error)
            return
        if batch or results or turn.taken:
            self._handlers.on_storage(None)
        answer(batch, turn.answers)
        for settlement in (*results, *turn.refused):
            self._report(settlement)
        if results:
            failpoint("drain.after_settle_commit")
        self._next_due = turn.next_due
        if free and turn.next_due is None and not (turn.taken or self._window):
            self._refusals.taken()
        if turn.taken:
            # The callers get their answers first: they have waited for the commit.
            self._window.take(turn.taken)
            self._handlers.on_taken(turn.taken)
            if losses != self._window.losses:
                # The link was lost during the commit. The rows in flight on it are older and leave first.
                self.link_down()
            self._leave.set()

    def _put_off(self, results: list[Settlement]) -> None:
        """Keep results that could not be written, for the next turn."""
        self._results[:0] = results
        self._storage_retry_s = self._clocks.monotonic() + _STORAGE_RETRY_S

    async def _one_by_one(self, batch: list[WaitingSend], error: Exception) -> None:
        """Commit the sends of a failed batch one by one, so that only the faulty ones fail."""
        if len(batch) == 1:
            fail(batch, error)
            return
        for waiting in batch:
            await self._turn([waiting])

    async def _answer_anyway(self, batch: list[WaitingSend], error: StorageUnavailable) -> None:
        if not isinstance(error, StorageFull):
            fail(batch, error)
            return
        try:
            answer(batch, await self._store.answer_without_space([waiting.submission for waiting in batch]))
        except (StorageUnavailable, StorageBroken) as failure:
            fail(batch, failure)

    async def _carry_all(self) -> None:
        """Send every row that may leave now."""
        sent = False
        while leaving := self._window.next_few(self._clocks.monotonic()):
            if not sent:
                failpoint("drain.before_send")
            try:
                await self._carrier.send_envelopes([(row.id, row.payload) for row in leaving])
            except ConnectionError:
                # The link reports its end by `link_down`, with the close code. If it ended before these
                # rows were taken, it has done so already.
                if not self._carrier.connected:
                    self.link_down()
                return
            sent = True
        if sent:
            failpoint("drain.after_send")

    def _give_up_waiting(self) -> None:
        """Make rows with an overdue answer pending; reset a link on which no send is answered."""
        late = self._window.overdue(self._clocks.monotonic(), ANSWER_DEADLINE_S)
        if not late:
            return
        self._metrics.unanswered(len(late))
        self._silent += 1
        log.warning("sends_unanswered", count=len(late), after_s=ANSWER_DEADLINE_S, in_a_row=self._silent)
        for row in late:
            self._results.append(
                self._later(row, f"no_answer: The broker was silent for {ANSWER_DEADLINE_S:.0f} s.")
            )
        self._leave.set()
        if self._silent >= _SILENT_DEADLINES:
            self._silent = 0
            self._carrier.reset(
                f"the broker has left sends unanswered for {ANSWER_DEADLINE_S:.0f} s, twice in a row"
            )

    async def _rest(self) -> None:
        """Wait until a turn has work: a wake, a row that is ready again, a deadline, or the end of a hold."""
        now_s = self._clocks.monotonic()
        ends = [self._storage_retry_s, self._pace.held_until(now_s), self._pace.limited_until_s]
        if self._next_due is not None:
            ends.append(now_s + (self._next_due - self._clocks.lived.now_ms()) / 1000)
        if self._window:
            # Rows that have not left yet will have left by then.
            ends.append((self._window.first_sent_s() or now_s) + ANSWER_DEADLINE_S)
        until_s = min((end for end in ends if end is not None), default=None)
        try:
            async with asyncio.timeout(None if until_s is None else max(0.0, until_s - now_s)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _report(self, settlement: Settlement) -> None:
        self._handlers.on_outcome(settlement)
        if settlement.status is Status.PENDING:
            if settlement.waiting_topic is not None:
                self._handlers.row_waits(settlement.waiting_topic)
            return
        if settlement.status is Status.DEAD:
            log.warning("outbox_dead", id=settlement.row.id, reason=settlement.error)
        self._handlers.on_settled(settlement)

    def _settlement(self, row: TakenRow, result: SendResult) -> Settlement:
        outcome = classify(result)
        if not isinstance(outcome, Done):
            topic = self._handlers.refused_key(row, outcome.error)
            if topic is not None:
                return Settlement(row, Status.PENDING, outcome.error, waiting_topic=topic)
        if isinstance(outcome, Done):
            self._pace.accepted()
            self._refusals.taken()
            return Settlement(
                row,
                Status.DONE,
                broker_message_id=outcome.broker_message_id,
                history_id=outcome.history_id,
                duplicate=outcome.duplicate,
            )
        if isinstance(outcome, Dead):
            if self._handlers.may_come_back(outcome.error):
                return self._later(row, outcome.error)
            return Settlement(row, Status.DEAD, f"{outcome.error}: {outcome.message}")
        wait_ms = outcome.retry_after_ms
        if outcome.holds_all and wait_ms is not None:
            self._hold(wait_ms)
            return Settlement(row, Status.PENDING, outcome.error)
        self._refusals.refused(outcome)
        if wait_ms is None:
            return self._later(row, outcome.error)
        return Settlement(row, Status.PENDING, outcome.error, self._clocks.lived.now_ms() + wait_ms)

    def _later(self, row: TakenRow, reason: str) -> Settlement:
        """Return the settlement that makes a row pending until its backoff is over."""
        wait_ms = int(self.backoff.delay_s(row.attempts + 1) * 1000)
        return Settlement(row, Status.PENDING, reason, self._clocks.lived.now_ms() + wait_ms)

    def _hold(self, wait_ms: int) -> None:
        """Hold back all sends for as long as the broker asks, and set the condition."""
        self._metrics.rate_limited()
        self._pace.refused(wait_ms, self._clocks.monotonic())
        self._refusals.limited(wait_ms, self.held_s)


def _frame_refused(row: TakenRow) -> str:
    return (
        f"payload_too_large: The broker closed the link (1009) for this frame of {len(row.payload)} bytes, "
        "also when nothing else was in flight. Send less, or raise the frame size of the broker or its proxy."
    )
