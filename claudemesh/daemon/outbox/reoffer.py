"""Reoffer: sends done sends again that the broker has forgotten, oldest first and behind live traffic.

A small page of them is in flight at a time, and the next page waits while the drain is busy. A send that
the broker refuses for now, because its recipient or topic does not exist again yet, stays on the list for a
later round. One whose seal the broker takes no more is sealed with the present key of its topic, and offered
again. A recipient that has the message already recognises it by sender and client_message_id.

Crash story: the list is in outbox.db (`outbox/done.py`). A send whose offer was interrupted by a crash is
offered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from claudemesh.daemon.outbox.carrier import ANSWER_DEADLINE_S, Carrier
from claudemesh.daemon.outbox.done import DoneSends, Offer, Reaccepted, WaitingOffers
from claudemesh.daemon.outbox.waiting_rows import ABOUT_SEAL
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import Dead, Done, Outcome, classify
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger

log = get_logger("reoffer")

_PREFIX = "again-"
_PAGE = 32
_POLL_S = 0.05
_LONGEST_YIELD_S = 1.0
# Pause between two rounds over refused sends. A member that comes back starts the next round at once.
ROUNDS = Backoff(initial_s=5.0, cap_s=600.0)


class Reoffer:
    """Works through the list of forgotten sends while the link is up."""

    def __init__(
        self,
        store: DoneSends,
        carrier: Carrier,
        backoff: Backoff,
        busy: Callable[[], bool],
        on_waiting: Callable[[WaitingOffers], None],
        reseal: Callable[[bytes], bytes | None],
    ) -> None:
        """`reseal` returns an envelope sealed with the present key of its topic, None without the key."""
        self._store = store
        self._carrier = carrier
        self._backoff = backoff
        self._busy = busy
        self._on_waiting = on_waiting
        self._reseal = reseal
        self._asked: dict[str, asyncio.Future[SendResult]] = {}
        self._again = asyncio.Event()

    def on_result(self, result: SendResult) -> bool:
        """Take a result if it is for a send that was offered again; return whether it is."""
        name = str(result.id)
        if not name.startswith(_PREFIX):
            return False
        future = self._asked.pop(name, None)
        if future is not None and not future.done():
            future.set_result(result)
        return True

    def try_refused_now(self) -> None:
        """Begin the next round at once, because a member or a topic has come back."""
        self._again.set()

    async def run(self) -> int:
        """Offer sends until none waits; return the number accepted. Raise `ConnectionError` or
        `StorageError`."""
        taken = rounds = 0
        while True:
            self._again.clear()
            taken += await self._round()
            waiting = await self._store.waiting()
            self._on_waiting(waiting)
            if not waiting.count:
                return taken
            rounds += 1
            try:
                async with asyncio.timeout(ROUNDS.delay_s(rounds)):
                    await self._again.wait()
            except TimeoutError:
                continue

    async def _round(self) -> int:
        last: Offer | None = None
        taken = 0
        while page := await self._store.offers(last, _PAGE):
            await self._yield_to_live_traffic()
            failpoint("reoffer.before_page")
            taken += await self._offer(page)
            last = page[-1]
        return taken

    async def _yield_to_live_traffic(self) -> None:
        """Wait while the drain has sends in flight, one second at most, so that the repair advances on a
        busy host."""
        waited_s = 0.0
        while self._busy() and waited_s < _LONGEST_YIELD_S:
            await asyncio.sleep(_POLL_S)
            waited_s += _POLL_S

    async def _offer(self, page: Sequence[Offer]) -> int:
        """Offer a page until each send is accepted or refused; return the number accepted."""
        failures = taken = 0
        while page:
            outcomes = await self._ask(page)
            accepted, refused, again, wait_s = _sorted(page, outcomes)
            resealed, refused = self._resealed(page, refused)
            # On the disk before it leaves: an offer whose answer is lost is repeated as it was.
            await self._store.settle_offers(accepted, refused, resealed)
            taken += len(accepted)
            page = [*again, *resealed]
            if page:
                failures += 1
                await asyncio.sleep(wait_s or self._backoff.delay_s(failures))
        return taken

    def _resealed(
        self, page: Sequence[Offer], refused: Sequence[tuple[str, str]]
    ) -> tuple[list[Offer], list[tuple[str, str]]]:
        """Seal those again that were refused for their seal; return them, and the others."""
        offers = {offer.id: offer for offer in page}
        resealed, others = list[Offer](), list[tuple[str, str]]()
        for row_id, error in refused:
            offer = offers[row_id]
            needs_seal = error.partition(":")[0] in ABOUT_SEAL
            payload = self._reseal(offer.payload) if needs_seal else None
            if payload is None:
                others.append((row_id, error))
            else:
                resealed.append(replace(offer, payload=payload))
        return resealed, others

    async def _ask(self, page: Sequence[Offer]) -> Sequence[Outcome | None]:
        """Send a page; return the outcome of each send, None for one without an answer in time."""
        futures: dict[str, asyncio.Future[SendResult]] = {}
        loop = asyncio.get_running_loop()
        try:
            for offer in page:
                name = _PREFIX + offer.id
                self._asked[name] = futures[name] = loop.create_future()
                await self._carrier.send_envelope(name, offer.payload)
            await asyncio.wait(futures.values(), timeout=ANSWER_DEADLINE_S)
        finally:
            for name in futures:
                self._asked.pop(name, None)
        return [classify(future.result()) if future.done() else None for future in futures.values()]


def _sorted(
    page: Sequence[Offer], outcomes: Sequence[Outcome | None]
) -> tuple[list[Reaccepted], list[tuple[str, str]], list[Offer], float]:
    """Sort a page into accepted, refused, to be offered again, and the seconds to wait before that (0: not
    given)."""
    accepted: list[Reaccepted] = []
    refused: list[tuple[str, str]] = []
    again: list[Offer] = []
    wait_s = 0.0
    for offer, outcome in zip(page, outcomes, strict=True):
        if isinstance(outcome, Done):
            accepted.append(Reaccepted(offer.id, outcome.broker_message_id, outcome.history_id))
        elif isinstance(outcome, Dead):
            refused.append((offer.id, f"{outcome.error}: {outcome.message}"))
        elif outcome is not None and outcome.error in ABOUT_SEAL:
            refused.append((offer.id, f"{outcome.error}: It waits for the present key of its topic."))
        else:
            again.append(offer)
            wait_s = max(wait_s, (outcome.retry_after_ms or 0) / 1000 if outcome is not None else 0.0)
    return accepted, refused, again, wait_s
