"""Pending rows go out, pipelined; results come back and are written in batches (daemon.md, Drain).

Crash story: a row is `inflight` on disk before its envelope leaves, and `done` on disk before anybody
hears of it. Whatever is in flight when the process or the link dies has an unknown outcome, is pending
again, and the broker's dedupe makes sending it twice free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import Claimed, OutboxStore, Settlement
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import Dead, Done, classify
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageUnavailable
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger

log = get_logger("drain")

WINDOW = 256
_STORAGE_RETRY_S = 1.0


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
    """Keeps up to `WINDOW` rows in flight while the link is up."""

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
        self._backoff = backoff
        self._on_settled = on_settled
        self._inflight: dict[str, Claimed] = {}
        self._results: list[Settlement] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._stopping = False

    @property
    def inflight(self) -> int:
        """How many rows wait for the broker's word."""
        return len(self._inflight)

    def wake(self) -> None:
        """Something may be due: a new row, a result, a link that is up."""
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
        """Work until cancelled."""
        while True:
            self._wake.clear()
            try:
                claimed = await self._step()
            except StorageUnavailable as error:
                log.warning("outbox_unavailable", error=str(error))
                await asyncio.sleep(_STORAGE_RETRY_S)
                self._wake.set()
                continue
            await self._send(claimed)
            if not self._inflight and not self._results:
                self._idle.set()
            if not self._wake.is_set():
                await self._wait()

    async def finish(self, timeout_s: float) -> None:
        """Claim nothing more and let what is in flight be answered and written, for so long at most."""
        self._stopping = True
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

    async def _step(self) -> list[Claimed]:
        free = self._free()
        results, self._results = self._results, []
        if not results and free <= 0:
            return []
        try:
            claimed = await self._store.step(results, self._clock.wall_ms(), free)
        except BaseException:
            self._results[:0] = results
            raise
        for settlement in results:
            self._report(settlement)
        if results:
            failpoint("d7")
        return list(claimed)

    async def _send(self, claimed: list[Claimed]) -> None:
        if claimed:
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
        if claimed:
            failpoint("d5")

    async def _wait(self) -> None:
        timeout = None
        if self._free() > 0:
            due = await self._store.next_due()
            if due is not None:
                timeout = max(0.0, (due - self._clock.wall_ms()) / 1000)
        if self._wake.is_set():
            return
        try:
            await asyncio.wait_for(self._wake.wait(), timeout)
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
            )
        if isinstance(outcome, Dead):
            return Settlement(row, Status.DEAD, f"{outcome.error}: {outcome.message}")
        wait_ms = outcome.retry_after_ms
        if wait_ms is None:
            wait_ms = int(self._backoff.delay_s(row.attempts + 1) * 1000)
        return Settlement(row, Status.PENDING, outcome.error, self._clock.wall_ms() + wait_ms)
