"""The outbox's one loop: sends come in, envelopes go out, results are written (daemon.md, Outbox, Drain).

Each turn is one transaction shared by all who wait: what came in during the last commit is in the next.
A send that meets an open link is inserted and claimed by the same commit, so it costs one commit before
it is acknowledged and on its way.

Crash story: a row is on disk before its caller hears of it, `inflight` on disk before its envelope
leaves, and `done` on disk before anybody hears of that. Whatever is in flight when the process or the
link dies has an unknown outcome, is pending again, and the broker's dedupe makes sending it twice free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

from claudemesh.daemon.outbox.states import Answer, Status
from claudemesh.daemon.outbox.store import Claimed, OutboxStore, Settlement, Submission
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import Dead, Done, classify
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageBroken, StorageFull, StorageUnavailable
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger

log = get_logger("drain")

WINDOW = 256
MAX_BATCH = 256
MAX_WAITING = 8192
_STORAGE_RETRY_MS = 1000

_Waiting: TypeAlias = tuple[Submission, "asyncio.Future[Answer]"]


class Carrier(Protocol):
    """What the drain needs of the link."""

    @property
    def connected(self) -> bool:
        """Whether envelopes can leave now."""
        ...

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        """Hand over a frozen envelope; raises `ConnectionError` when the link is gone."""
        ...


class Drain:
    """Takes sends, keeps up to `WINDOW` rows in flight while the link is up, writes what became of them."""

    def __init__(
        self,
        store: OutboxStore,
        carrier: Carrier,
        clock: Clock,
        backoff: Backoff,
        on_settled: Callable[[Settlement], None],
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._clock = clock
        self.backoff = backoff
        self._on_settled = on_settled
        self._waiting: deque[_Waiting] = deque()
        self._inflight: dict[str, Claimed] = {}
        self._results: list[Settlement] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._next_due: int | None = None
        self._stopping = self._over = False
        # The last commit found the disk full.
        self.disk_full = False
        # Whether a refusal may pass by itself, because the broker is being mended (healing.py).
        self.may_come_back: Callable[[str], bool] = lambda error: False

    @property
    def inflight(self) -> int:
        """How many rows wait for the broker's word."""
        return len(self._inflight)

    def submit(self, submission: Submission) -> asyncio.Future[Answer]:
        """Queue a send for the next turn; `Overloaded` when 8192 wait already, `StorageBroken` at the end.

        Cancelling the future does not take the send back: it may be in a commit already.
        """
        if self._over:
            raise StorageBroken("nothing more is written")
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future))
        self._wake.set()
        return future

    def wake(self) -> None:
        """Something may be due: a row written by other means, a link that is up."""
        self._wake.set()

    def on_result(self, result: SendResult) -> None:
        """Take the broker's word for one row; a result for a row that is not in flight is ignored."""
        row = self._inflight.pop(str(result.id), None)
        if row is None:
            return
        self._results.append(self._settlement(row, result))
        self._wake.set()

    def on_link_down(self) -> None:
        """Every row in flight has an unknown outcome: it is offered again as soon as there is a link."""
        now_ms = self._clock.wall_ms()
        for row in self._inflight.values():
            self._results.append(Settlement(row, Status.PENDING, "link_lost", now_ms))
        self._inflight.clear()
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled, or until the disk fails."""
        try:
            while True:
                self._wake.clear()
                count = min(len(self._waiting), MAX_BATCH)
                await self._turn([self._waiting.popleft() for _ in range(count)])
                if not (self._inflight or self._results or self._waiting):
                    self._idle.set()
                if not self._wake.is_set() and not self._waiting:
                    await self._rest()
        finally:
            self._over = True
            _fail(self._waiting, StorageBroken("nothing more is written"))
            self._idle.set()

    async def finish(self, timeout_s: float) -> None:
        """Claim nothing more and let what is in flight be answered and written, for so long at most."""
        self._stopping = True
        if self._over:
            return
        self._idle.clear()
        self._wake.set()
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            log.info("drain_unfinished", inflight=len(self._inflight))

    def _free(self) -> int:
        if self._stopping or not self._carrier.connected:
            return 0
        return WINDOW - len(self._inflight)

    async def _turn(self, batch: list[_Waiting]) -> None:
        results, self._results = self._results, []
        free = self._free()
        if not (batch or results or free):
            self._next_due = None
            return
        submissions = [submission for submission, _ in batch]
        try:
            turn = await self._store.turn(submissions, results, self._clock.wall_ms(), free)
        except StorageUnavailable as error:
            self.disk_full = isinstance(error, StorageFull)
            self._put_off(results)
            await self._answer_anyway(batch, error)
            return
        except StorageBroken as error:
            _fail(batch, error)
            raise
        except Exception as error:
            log.error("turn_failed", error=repr(error), exc_info=error)
            self._put_off(results)
            await self._one_by_one(batch, error)
            return
        self.disk_full = False
        _answer(batch, turn.answers)
        for settlement in results:
            self._report(settlement)
        if results:
            failpoint("d7")
        self._next_due = turn.next_due
        if turn.claimed:
            # The callers' answers leave first: they have waited for the commit, the broker has not.
            await asyncio.sleep(0)
            await self._send(turn.claimed)

    def _put_off(self, results: list[Settlement]) -> None:
        """Keep results that could not be written; the broker's word is not lost, only later on disk."""
        self._results[:0] = results
        self._next_due = self._clock.wall_ms() + _STORAGE_RETRY_MS

    async def _one_by_one(self, batch: list[_Waiting], error: Exception) -> None:
        """One bad send must not sink its neighbours: only the culprit hears of its error."""
        if len(batch) == 1:
            _fail(batch, error)
            return
        for entry in batch:
            await self._turn([entry])

    async def _answer_anyway(self, batch: list[_Waiting], error: StorageUnavailable) -> None:
        log.warning("outbox_unavailable", error=str(error))
        if not isinstance(error, StorageFull):
            _fail(batch, error)
            return
        try:
            _answer(batch, await self._store.answer_without_space([entry[0] for entry in batch]))
        except (StorageUnavailable, StorageBroken) as failure:
            _fail(batch, failure)

    async def _send(self, claimed: Sequence[Claimed]) -> None:
        failpoint("d4")
        for row in claimed:
            self._inflight[row.id] = row
        for row in claimed:
            try:
                await self._carrier.send_envelope(row.id, row.payload)
            except ConnectionError:
                # The link reports its end itself when it had carried rows; these it may not know of.
                self.on_link_down()
                return
        failpoint("d5")

    async def _rest(self) -> None:
        """Wait for something to do, or until the next row is due."""
        if self._next_due is None:
            await self._wake.wait()
            return
        try:
            timeout_s = max(0.0, (self._next_due - self._clock.wall_ms()) / 1000)
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return

    def _report(self, settlement: Settlement) -> None:
        if settlement.status is Status.PENDING:
            return
        if settlement.status is Status.DEAD:
            log.warning("outbox_dead", id=settlement.row.id, reason=settlement.error)
        self._on_settled(settlement)

    def _settlement(self, row: Claimed, result: SendResult) -> Settlement:
        outcome = classify(result)
        if isinstance(outcome, Done):
            return Settlement(
                row,
                Status.DONE,
                broker_message_id=outcome.broker_message_id,
                history_id=outcome.history_id,
                duplicate=outcome.duplicate,
            )
        if isinstance(outcome, Dead) and not self.may_come_back(outcome.error):
            return Settlement(row, Status.DEAD, f"{outcome.error}: {outcome.message}")
        wait_ms = None if isinstance(outcome, Dead) else outcome.retry_after_ms
        if wait_ms is None:
            wait_ms = int(self.backoff.delay_s(row.attempts + 1) * 1000)
        return Settlement(row, Status.PENDING, outcome.error, self._clock.wall_ms() + wait_ms)


def _answer(batch: Sequence[_Waiting], answers: Sequence[Answer]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if not future.done():
            future.set_result(answer)


def _fail(batch: Iterable[_Waiting], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
