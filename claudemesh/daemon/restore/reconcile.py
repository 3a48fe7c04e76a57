"""Reconciliation with a broker whose database was restored from an older copy, at each link-up.

1. Topics and subscriptions of this host are put back (`topics/own.py`), so that offered sends find them.
2. The broker is asked about done sends (`outbox/lookback.py`). One that it does not know means that its
   database went back. The broker's store epoch is a hint: when it changed, all done sends are asked about.
3. Forgotten sends are offered again (`outbox/reoffer.py`).

A broker that has lost this member is asked to add it again (`restore/readmission.py`). The daemons of
owners and admins confirm lost members (`restore/vouching.py`), and revoke again those whose revocation was
lost.

The state is in outbox.db, so a crash or a lost link leaves the work to be continued at the next link-up.
A write that fails is tried again; it never ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.link.handshake import Agreed
from claudemesh.daemon.outbox.carrier import Carrier
from claudemesh.daemon.outbox.done import DoneSends, Waiting
from claudemesh.daemon.outbox.lookback import DoneSend, Verdict, can_be_asked, judge, places_to_ask
from claudemesh.daemon.outbox.reoffer import Reoffer
from claudemesh.daemon.restore import vouching
from claudemesh.daemon.restore.broker_notes import BrokerNotes
from claudemesh.daemon.restore.readmission import ask_to_be_taken_back
from claudemesh.daemon.restore.state import RestoreState
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import MemberEvent, News, UnconfirmedMember
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.replies import PeerEntry, PeerList, Read, SendStatuses
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import OnCrash, TaskOwner
from claudemesh.runtime.sidefiles import WriteFile

log = get_logger("restore")

T = TypeVar("T")

_SCAN_PAGE = 128
_UNCONFIRMED = "membership_unconfirmed"
_UNCHECKED = "restore_check_failed"


class ReconcilerLink(Carrier, Protocol):
    """The part of the link that the reconciler uses."""

    async def call(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        """Ask the broker, and return what `read` makes of its answer. `ProtocolError`: see `calls.Ask`."""
        ...


@dataclass(frozen=True, slots=True)
class ReconcilerFiles:
    """The side files of the reconciler, and the function that writes them."""

    topic_subscriptions: Path
    broker_features: Path
    write: WriteFile


class Reconciler:
    """Compares with the broker at each link-up, and repairs while the link is open."""

    def __init__(
        self,
        sends: DoneSends,
        link: ReconcilerLink,
        files: ReconcilerFiles,
        directory: Directory,
        membership: Membership,
        keyring: Keyring,
        *,
        clock: Clock,
        state: RestoreState,
        lived: LivedClock,
        backoff: Backoff,
        busy: Callable[[], bool],
        conditions: Conditions,
        on_crash: OnCrash,
    ) -> None:
        self._sends = sends
        self._link = link
        self._membership = membership
        self._keyring = keyring
        self._directory = directory
        directory.on_revived(self._on_revived)
        self._member_id = ""
        self._backoff = backoff
        self._lived = lived
        self._state = state
        self._conditions = conditions
        self._notes = BrokerNotes(files.broker_features, files.write)
        self.topics = OwnTopics(files.topic_subscriptions, clock, files.write)
        self._reoffer = Reoffer(sends, link, backoff, busy, self._show_waiting)
        self._tasks = TaskOwner(on_crash)
        self._task: asyncio.Task[None] | None = None
        # The store epoch of the last link whose state was verified; None before the first link.
        self.store_epoch: str | None = None

    async def load(self) -> None:
        """Read the notes of an earlier run."""
        self.topics.load()
        self.store_epoch = self._notes.store_epoch()
        self._state.noticed = await self._sends.restore()
        self._show_lost()

    def link_up(self, agreed: Agreed) -> None:
        """Start the comparison and the repair on a new link."""
        self._conditions.end(_UNCONFIRMED)
        self._show_lost()
        self._member_id = agreed.hello.member_id
        self._state.is_unsure = True
        self._notes.note(agreed.features, self.store_epoch)
        self._task = self._tasks.start(self._run(agreed), "reconcile")

    def link_down(self) -> None:
        """Stop the work of this link. The next link starts it again."""
        self.topics.link_down()
        self._conditions.end(_UNCHECKED)
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop, and wait for the tasks."""
        await self._tasks.stop()

    def on_result(self, result: SendResult) -> bool:
        """Take a result if it is for a send that was offered again; return whether it is."""
        return self._reoffer.on_result(result)

    def on_event(self, news: News) -> None:
        """React to a member that has come back, or that has to be confirmed."""
        if isinstance(news, UnconfirmedMember):
            self._confirm(news)
        elif isinstance(news, PeerList) or (isinstance(news, MemberEvent) and news.event == "member_added"):
            self._reoffer.try_refused_now()

    async def readmit(self) -> ExitWith | None:
        """Ask a broker that has lost this member to add it again; return the reason to stop if it refuses."""
        self.topics.member_lost()
        outcome = await ask_to_be_taken_back(self._membership, self._keyring)
        if isinstance(outcome, ExitWith):
            return outcome
        self._conditions.begin(_UNCONFIRMED, outcome.message)
        return None

    async def look_up(self, ids: Sequence[str]) -> SendStatuses:
        """Ask the broker about sends, by their client_message_ids. `ProtocolError`."""
        params = {"client_message_ids": list(ids)}
        return await self._link.call("send_status", params, replies.send_status_of(ids))

    def _confirm(self, member: UnconfirmedMember) -> None:
        params = vouching.vouch_for(member, self._directory)
        if params is not None:
            self._tasks.start(self._vouch(params), "vouching")

    def _on_revived(self, entry: PeerEntry) -> bool:
        """Revoke a member again that this host knows as revoked, if its role allows that."""
        own = self._directory.by_id(self._member_id)
        if own is None or own.role not in vouching.ROLES:
            return False
        self._confirm(vouching.as_unconfirmed(entry))
        return True

    async def _vouch(self, params: Mapping[str, Any]) -> None:
        """Confirm a member. After a failure the broker asks again."""
        member_id, status = params["member_id"], params["status"]
        try:
            await self._link.call("member_vouch", params, replies.nothing)
        except ProtocolError as error:
            log.warning("member_not_confirmed", member_id=member_id, error=str(error))
        else:
            log.warning("member_confirmed", member_id=member_id, name=params["name"], status=status)

    async def _run(self, agreed: Agreed) -> None:
        failures = 0
        while True:
            try:
                await self._reconcile(agreed)
                return
            except (ProtocolError, ConnectionError, StorageError) as error:
                failures += 1
                self._conditions.begin(
                    _UNCHECKED,
                    f"The check whether the broker still has all accepted sends has failed ({error}). It is "
                    "repeated; sends and deliveries continue.",
                )
            await asyncio.sleep(self._backoff.delay_s(failures))

    async def _reconcile(self, agreed: Agreed) -> None:
        await self.topics.put_back(self._link.call, agreed.broker_wall_ms)
        if not self._state.to_be_noted:
            self._state.to_be_noted = await self._has_gone_back(agreed)
        if self._state.to_be_noted:
            await self._note()
        if self.store_epoch != agreed.hello.store_epoch:
            self.store_epoch = agreed.hello.store_epoch
            self._notes.note(agreed.features, self.store_epoch)
        self._state.is_unsure = False
        self._conditions.end(_UNCHECKED)
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

    async def _ask(self, sends: Sequence[DoneSend]) -> Verdict:
        if not sends:
            return Verdict()
        return judge(sends, await self.look_up([send.client_message_id for send in sends]))

    async def _note(self) -> None:
        await self._sends.note_restore(self._lived.now_ms())
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
        self._show_lost()

    def _show_lost(self) -> None:
        lost = self._state.lost
        if not lost:
            self._conditions.end("sends_lost_by_broker")
            return
        self._conditions.begin(
            "sends_lost_by_broker",
            f"The broker's database was restored from an older copy, and {lost} sends that it had accepted "
            "cannot be offered again, because their payloads were no longer kept here. `claudemesh daemon "
            "outbox list` shows them with last_error forgotten_by_broker. Send the important ones again.",
        )

    def _show_waiting(self, waiting: Waiting) -> None:
        if not waiting.refused:
            self._conditions.end("reoffer_refused")
            return
        self._conditions.begin(
            "reoffer_refused",
            f"The broker's database was restored from an older copy, and it refuses {waiting.refused} of "
            f"the sends that it has lost (for one, {waiting.error}). They are offered again until their "
            "recipients have come back. `claudemesh daemon outbox prune --confirm` gives them up.",
        )
