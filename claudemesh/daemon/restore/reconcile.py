"""Reconciliation with a broker whose database was restored from an older copy, at each link-up.

1. The broker is asked about the newest done sends (`outbox/lookback.py`). One that it does not know means
   that its database went back. The broker's store epoch is a hint: when it changed, all done sends are asked
   about. No send leaves on a link before this answer: otherwise the newest done sends would be those of the
   new database, and the lost ones would lie behind them.
2. Topics and subscriptions of this host are put back (`topics/own.py`), so that offered sends find them.
3. Forgotten sends are offered again (`outbox/reoffer.py`).

A broker that has lost this member is asked to add it again (`restore/readmission.py`). The daemons of
owners and admins confirm lost members (`restore/vouching.py`), and revoke again those whose revocation was
lost.

The state is in outbox.db, so a crash or a lost link leaves the work to be continued at the next link-up.
A write that fails is tried again; it never ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from claudemesh.daemon.link.handshake import Agreed
from claudemesh.daemon.outbox.carrier import Carrier
from claudemesh.daemon.outbox.done import DoneSends
from claudemesh.daemon.outbox.lookback import Comparison, DoneSend, can_be_asked, judge, places_to_ask
from claudemesh.daemon.outbox.reoffer import Reoffer
from claudemesh.daemon.restore.broker_notes import BrokerNotes
from claudemesh.daemon.restore.state import RestoreState
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import MemberEvent, News
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.replies import PeerList, Read, SendStatuses
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import OnCrash, TaskOwner

log = get_logger("restore")

T = TypeVar("T")

_SCAN_PAGE = 128


class ReconcilerLink(Carrier, Protocol):
    """The part of the link that the reconciler uses."""

    async def call(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        """Ask the broker, and return what `read` makes of its answer. `ProtocolError`: see `calls.Ask`."""
        ...


class Reconciler:
    """Compares with the broker at each link-up, and repairs while the link is open."""

    def __init__(
        self,
        sends: DoneSends,
        link: ReconcilerLink,
        reoffer: Reoffer,
        topics: OwnTopics,
        notes: BrokerNotes,
        state: RestoreState,
        backoff: Backoff,
        on_crash: OnCrash,
    ) -> None:
        self._sends = sends
        self._link = link
        self._reoffer = reoffer
        self._topics = topics
        self._notes = notes
        self._state = state
        self._backoff = backoff
        self._tasks = TaskOwner(on_crash)
        self._task: asyncio.Task[None] | None = None
        # The store epoch of the last link whose state was verified; None before the first link.
        self.store_epoch: str | None = None

    async def load(self) -> None:
        """Read what an earlier run has noted."""
        self._topics.load()
        self.store_epoch = self._notes.store_epoch()
        self._state.noticed = await self._sends.restore()
        self._state.show_lost()

    def link_up(self, agreed: Agreed) -> None:
        """Begin to compare and to repair on a new link."""
        self._state.show_lost()
        self._state.is_unsure, self._state.is_asked = True, False
        self._notes.note(agreed.features, self.store_epoch)
        self._task = self._tasks.start(self._run(agreed), "reconcile")

    def link_down(self) -> None:
        """Stop the work of this link. The next link starts it again."""
        self._state.is_asked = False
        self._topics.link_down()
        self._state.end_unchecked()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop, and wait for the tasks."""
        await self._tasks.stop()

    def on_result(self, result: SendResult) -> bool:
        """Take a result if it is for a send that was offered again; return whether it is."""
        return self._reoffer.on_result(result)

    def on_event(self, news: News) -> None:
        """React to a member that has come back."""
        if isinstance(news, PeerList) or (isinstance(news, MemberEvent) and news.event == "member_added"):
            self._reoffer.try_refused_now()

    async def look_up(self, ids: Sequence[str]) -> SendStatuses:
        """Ask the broker about sends, by their client_message_ids. `ProtocolError`."""
        params = {"client_message_ids": list(ids)}
        return await self._link.call("send_status", params, replies.send_status_of(ids))

    async def _run(self, agreed: Agreed) -> None:
        failures = 0
        while True:
            try:
                await self._reconcile(agreed)
                return
            except (ProtocolError, ConnectionError, StorageError) as error:
                failures += 1
                self._state.show_unchecked(error)
            await asyncio.sleep(self._backoff.delay_s(failures))

    async def _reconcile(self, agreed: Agreed) -> None:
        if not self._state.to_be_noted and await self._has_gone_back(agreed):
            self._state.went_back()
        if self._state.to_be_noted:
            await self._note()
        self._state.asked()
        await self._topics.put_back(self._link.call, agreed.broker_wall_ms)
        if self.store_epoch != agreed.hello.store_epoch:
            self.store_epoch = agreed.hello.store_epoch
            self._notes.note(agreed.features, self.store_epoch)
        self._state.is_unsure = False
        self._state.end_unchecked()
        noticed = self._state.noticed
        is_repairing = noticed is not None and not noticed.is_scanned
        if is_repairing:
            await self._scan(agreed)
        taken = await self._reoffer.run()
        if is_repairing or taken:
            log.info("reoffer_done", count=taken)

    async def _has_gone_back(self, agreed: Agreed) -> bool:
        """Ask about the newest done sends and a sample of older ones, in one call."""
        changed = self.store_epoch is not None and self.store_epoch != agreed.hello.store_epoch
        found = await self._sends.at(places_to_ask())
        asked = [send for send in found if self._can_be_asked(send, agreed)]
        verdict = await self._ask(asked)
        forgotten = await self._sends.not_waiting(verdict.forgotten)
        if changed or forgotten or verdict.renamed:
            log.warning(
                "broker_went_back",
                epoch_changed=changed,
                asked=len(asked),
                unknown=len(forgotten),
                renamed=len(verdict.renamed),
            )
            return True
        return False

    def _can_be_asked(self, send: DoneSend, agreed: Agreed) -> bool:
        # The ids of messages contain the broker's wall time.
        return can_be_asked(send, agreed.broker_wall_ms, agreed.features.dedupe_retention_days)

    async def _ask(self, sends: Sequence[DoneSend]) -> Comparison:
        if not sends:
            return Comparison()
        return judge(sends, await self.look_up([send.client_message_id for send in sends]))

    async def _note(self) -> None:
        await self._sends.note_restore(self._state.lived_ms())
        self._state.noticed = await self._sends.restore()
        self._state.to_be_noted = False
        failpoint("restore.after_noted")

    async def _scan(self, agreed: Agreed) -> None:
        """Ask about every done send that the broker must know, newest first, and list what it forgot."""
        last: DoneSend | None = None
        too_old = 0
        while page := await self._sends.before(last, _SCAN_PAGE):
            last = page[-1]
            asked = [send for send in page if self._can_be_asked(send, agreed)]
            too_old += sum(send.offerable for send in page) - sum(send.offerable for send in asked)
            verdict = await self._ask(asked)
            if verdict.went_back:
                await self._sends.note_verdict(verdict)
            elif not any(send.offerable for send in page):
                # Older sends have no payload either, and were in the copy.
                break
        await self._sends.note_scanned()
        self._state.noticed = await self._sends.restore()
        if (noticed := self._state.noticed) is not None:
            log.warning(
                "broker_forgot",
                offered_again=noticed.forgotten,
                lost=noticed.lost,
                not_asked_too_old=too_old,
            )
        self._state.show_lost()
