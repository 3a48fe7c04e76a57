"""Sends that were done are offered again when the broker's data is another than it was (daemon.md, Outbox).

A broker whose database was restored from a backup, or failed over to a standby that lagged, has forgotten
what it accepted since; it says a new `epoch`. Its dedupe makes offering what it does remember free, and
recipients know what they have by the sender's id.

Crash story: the new epoch is noted after the last of them was answered; until then every start, and every
link, begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from claudemesh.daemon.outbox.done import DoneSend, DoneSends
from claudemesh.daemon.outbox.drain import ANSWER_DEADLINE_S, Carrier
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import Dead, Done, classify
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("reoffer")

_PREFIX = "again-"
_PAGE = 64


class Reoffer:
    """Compares epochs when the link is up, and offers done sends again when they differ."""

    def __init__(
        self,
        store: DoneSends,
        carrier: Carrier,
        backoff: Backoff,
        known: str | None,
        on_finished: Callable[[], None],
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._backoff = backoff
        self._on_finished = on_finished
        self._waiting: dict[str, asyncio.Future[SendResult]] = {}
        self._tasks = TaskOwner()
        self._task: asyncio.Task[None] | None = None
        # The epoch under which everything that is done was accepted; None before the first link.
        self.epoch = known

    def link_up(self, epoch: str) -> None:
        """The broker has said its epoch."""
        if self.epoch is None or self.epoch == epoch:
            self.epoch = epoch
            self._on_finished()
            return
        log.warning("epoch_changed", old=self.epoch, new=epoch)
        self._task = self._tasks.start(self._run(epoch), "reoffer")

    def link_down(self) -> None:
        """Nothing more is answered on this link; the next one begins anew."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop."""
        await self._tasks.stop()

    def on_result(self, result: SendResult) -> bool:
        """Take the broker's word if it is about a send that was offered again; returns whether it is."""
        name = str(result.id)
        if not name.startswith(_PREFIX):
            return False
        future = self._waiting.pop(name, None)
        if future is not None and not future.done():
            future.set_result(result)
        return True

    async def _run(self, epoch: str) -> None:
        after = offered = 0
        try:
            while rows := await self._store.after(after, _PAGE):
                failpoint("o1")
                await self._offer(rows)
                after, offered = rows[-1].cursor, offered + len(rows)
        except ConnectionError:
            return  # the next link begins anew
        except StorageError as error:
            log.warning("reoffer_failed", error=str(error))
            return
        log.info("reoffer_done", count=offered)
        self.epoch = epoch
        self._on_finished()

    async def _offer(self, rows: Sequence[DoneSend]) -> None:
        failures = 0
        while rows:
            results = await self._ask(rows)
            again, wait_s = [], 0.0
            for row, result in zip(rows, results, strict=True):
                outcome = classify(result)
                if isinstance(outcome, Done):
                    if outcome.broker_message_id != row.broker_message_id:
                        await self._store.accepted_anew(row.id, outcome.broker_message_id, outcome.history_id)
                elif isinstance(outcome, Dead):
                    # A recipient that has left since, for one: it was done once, and stays so here.
                    log.warning("reoffer_refused", id=row.id, error=outcome.error)
                else:
                    again.append(row)
                    wait_s = max(wait_s, (outcome.retry_after_ms or 0) / 1000)
            failures += 1
            rows = again
            if rows:
                await asyncio.sleep(wait_s or self._backoff.delay_s(failures))

    async def _ask(self, rows: Sequence[DoneSend]) -> Sequence[SendResult]:
        loop = asyncio.get_running_loop()
        futures = []
        for row in rows:
            future: asyncio.Future[SendResult] = loop.create_future()
            futures.append(future)
            self._waiting[_PREFIX + row.id] = future
            await self._carrier.send_envelope(_PREFIX + row.id, row.payload)
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                return await asyncio.gather(*futures)
        except TimeoutError:
            self._carrier.reset(f"the broker has left sends unanswered for {ANSWER_DEADLINE_S:.0f} s")
            raise ConnectionError("no answer") from None
