"""Telling of receipts: states of received messages become sealed messages to their senders.

A sender gets at most one message of receipts a second, with up to 2000 receipts. Further ones wait in
inbox.db. The message goes through the outbox like any other, so it also waits for a broker that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msgspec import Struct

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.inbox.due import DueReceipt, DueReceipts
from claudemesh.daemon.outbox.request import SendRequest, Target
from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.receipts import MAX_RECEIPTS, RECEIPT_ID, Receipt
from claudemesh.runtime.errors import StorageBroken, StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

_told = SparseLog(get_logger("receipts"))

_EVERY_S: Final = 1.0
# Statuses of a busy daemon or a full disk, after which the receipts are told later.
_LATER: Final = frozenset({429, 500, 503, 507})
_LATER_S: Final = 5.0
# Bytes of a sealed body beside its receipts, and of one receipt beside its id.
_FRAME_BYTES: Final = 600
_RECEIPT_BYTES: Final = 400


class OwnReceipts(Struct, frozen=True):
    """The member of this host, and the taking of receipts that it tells itself.

    `take` returns the ids of the sends that the outbox knows.
    """

    member_id: str
    take: Callable[[str, Sequence[Receipt]], Awaitable[frozenset[str]]]


class ReceiptTelling:
    """Tells the senders of messages how far the messages have come here."""

    def __init__(
        self,
        due: DueReceipts,
        directory: Directory,
        submit: Callable[[SendRequest], Awaitable[Answer]],
        new_id: Callable[[], str],
        inline_bytes: Callable[[], int],
        names_sessions: Callable[[], bool],
        on_told: Callable[[int], None],
        here: OwnReceipts | None = None,
    ) -> None:
        """`inline_bytes` returns the broker's limit of a body. Without `names_sessions` no session is
        named. `on_told` gets the number of receipts that are in the outbox. `here` takes those of messages
        that this host has sent to itself."""
        self._due = due
        self._directory = directory
        self._submit = submit
        self._new_id = new_id
        self._inline_bytes = inline_bytes
        self._names_sessions = names_sessions
        self._on_told = on_told
        self._here = here

    async def run(self) -> None:
        """Tell receipts until cancelled. It returns when the storage is broken."""
        while True:
            await self._due.wait()
            try:
                is_done = await self.tell_all()
            except StorageBroken:
                return
            except StorageError as error:
                _told.warning("receipts_wait_for_the_disk", error=str(error))
                is_done = False
            if not is_done:
                self._due.wake()
            await asyncio.sleep(_EVERY_S if is_done else _LATER_S)

    async def tell_all(self) -> bool:
        """Send one message of receipts to each member that waits for some. Return whether none was put
        off."""
        is_done = True
        for member_id in await self._due.senders():
            waiting = await self._due.of(member_id, MAX_RECEIPTS + 1)
            found = self._fitting(waiting[:MAX_RECEIPTS])
            if len(found) < len(waiting):
                # The rest follows after a second.
                self._due.wake()
            is_done = await self._tell(member_id, found) and is_done
        return is_done

    def _fitting(self, receipts: Sequence[DueReceipt]) -> Sequence[DueReceipt]:
        """Return the first receipts, as many as fit into one message, and one at least."""
        room = self._inline_bytes() - _FRAME_BYTES
        for number, one in enumerate(receipts):
            room -= _RECEIPT_BYTES + len(one.receipt.client_message_id)
            if room < 0:
                return receipts[: max(1, number)]
        return receipts

    async def _tell(self, member_id: str, receipts: Sequence[DueReceipt]) -> bool:
        if self._here is not None and member_id == self._here.member_id:
            known = await self._here.take(member_id, [one.receipt for one in receipts])
            # The others wait for the row of their send, whose commit wakes this.
            await self._due.told([one for one in receipts if one.receipt.client_message_id in known])
            return True
        peer = self._directory.by_id(member_id)
        if peer is not None and receipts:
            failpoint("receipt.before_submit")
            answer = await self._submit(self._request(peer.pubkey, receipts))
            if answer.status in _LATER:
                _told.warning("receipts_put_off", status=answer.status, error=answer.body.get("error"))
                return False
            failpoint("receipt.after_submit")
            if answer.status < 400:
                self._on_told(len(receipts))
        # A sender that has left, or was revoked, is told nothing.
        await self._due.told(receipts)
        return True

    def _request(self, pubkey: str, receipts: Sequence[DueReceipt]) -> SendRequest:
        found = [one.receipt for one in receipts]
        if not self._names_sessions():
            found = [one.without_sessions() for one in found]
        return SendRequest(
            target=Target("dm", ref=pubkey),
            message="",
            priority="low",
            client_message_id=f"{RECEIPT_ID}{self._new_id()}",
            receipts=tuple(found),
        )
