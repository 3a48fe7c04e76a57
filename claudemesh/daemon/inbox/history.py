"""Messages of the broker's history: asked for, verified as deliveries are, opened where keys allow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from msgspec import Struct

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.daemon.inbox.verify import Invalid, Recipient, Verifier, refusal_of
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.frames import Deliver
from claudemesh.protocol.history_replies import HistoryPage, history_page
from claudemesh.protocol.receipts import RECEIPT_ID
from claudemesh.protocol.replies import BadReply
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

_told = SparseLog(get_logger("history"))


class HistoryWish(Struct, frozen=True):
    """A page of the history: behind `after`, or else the newest messages before `before`.

    `destination` is a member's key, `#topic` or `queue:name`.
    """

    limit: int
    after: int | None = None
    before: int | None = None
    destination: str | None = None

    def params(self) -> dict[str, Any]:
        """Return the parameters of the call."""
        given = {
            "limit": self.limit,
            "after": self.after,
            "before": self.before,
            "destination": self.destination,
        }
        return {name: value for name, value in given.items() if value is not None}

    def check(self, page: HistoryPage) -> None:
        """Raise `BadReply` for a page out of the bounds, which would repeat or skip messages."""
        low, high = self.after or 0, self.before
        ids = [one.history_id for one in page.items]
        if len(ids) > self.limit or (ids and (ids[0] <= low or (high is not None and ids[-1] >= high))):
            raise BadReply("history.items", "The broker returned other messages than the page has.")
        if page.more and not (ids or page.faults):
            raise BadReply("history.more", "The broker returned an empty page, and says that more follows.")


class OwnMessage(Struct, frozen=True):
    """A genuine message to or from this member. `recipient` is the other member of a dm that it sent."""

    row: InboxRow
    is_own: bool
    recipient: Recipient | None

    @property
    def was_received(self) -> bool:
        """Whether the broker has delivered it to this member.

        Own dms to itself are, and own jobs that it has acknowledged. A post is not delivered to its sender.
        """
        is_to_itself = self.row.kind == "dm" and self.recipient is None
        return not self.is_own or self.row.kind == "queue" or is_to_itself

    @property
    def has_receipts(self) -> bool:
        """Whether it consists of receipts. Own ones that cannot be opened here are known by their ids."""
        row = self.row
        if row.sealed is None:
            return bool(row.receipting.receipts)
        return self.is_own and row.priority == "low" and row.client_message_id.startswith(RECEIPT_ID)


class Seen(Struct, frozen=True):
    """A page of genuine messages, oldest first.

    `dropped` messages of the broker's page were not genuine. `next` is the history id at which the page ends
    in the direction of reading, None when no other follows.
    """

    messages: tuple[OwnMessage, ...]
    dropped: int
    next: int | None
    pruned_before: int


class History:
    """Reads pages of the history of this member from the broker."""

    def __init__(
        self,
        call: Ask,
        verifier: Verifier,
        directory: Directory,
        know: Callable[[Collection[str]], Awaitable[None]],
        own_id: str,
        on_dropped: Callable[[], None],
    ) -> None:
        """`know` asks for members by their ids. `on_dropped` is called for each message that is dropped."""
        self._call = call
        self._verifier = verifier
        self._directory = directory
        self._know = know
        self._own_id = own_id
        self._on_dropped = on_dropped

    async def page(self, wish: HistoryWish, now_ms: int) -> Seen:
        """Return a page. Raise `ProtocolError`, broker_unavailable among others."""
        page = await self._call("history", wish.params(), history_page)
        wish.check(page)
        await self._know_members(page.items)
        messages: list[OwnMessage] = []
        dropped, slices = len(page.faults), Slices()
        for one in page.items:
            await slices.rest()
            opened = await self._open(one, wish, now_ms)
            if isinstance(opened, OwnMessage) and opened.has_receipts:
                continue
            if isinstance(opened, Invalid):
                dropped += 1
                self._on_dropped()
                _told.warning("history_invalid", reason=opened.reason, history_id=one.history_id)
                continue
            messages.append(opened)
        end = None
        if page.more and page.items:
            end = page.items[-1 if wish.after is not None else 0].history_id
        return Seen(tuple(messages), dropped, end, page.pruned_before)

    async def _know_members(self, items: Sequence[Deliver]) -> None:
        """Ask for the members of a page that the directory lacks: senders, and recipients of own dms."""
        senders = {one.sender.member_id for one in items}
        unknown = {member_id for member_id in senders if self._directory.by_id(member_id) is None}
        if unknown or any(self._is_to_stranger(one) for one in items):
            await self._know(unknown)

    def _is_to_stranger(self, one: Deliver) -> bool:
        recipient = self._recipient(one) if one.sender.member_id == self._own_id else None
        return recipient is not None and recipient.peer is None

    async def _open(self, one: Deliver, wish: HistoryWish, now_ms: int) -> OwnMessage | Invalid:
        sender = self._directory.by_id(one.sender.member_id)
        refused = refusal_of(sender, one.accepted_at)
        if sender is None or refused is not None:
            return Invalid(refused or "unknown_sender")
        is_own = sender.member_id == self._own_id
        recipient = self._recipient(one) if is_own else None
        row = await self._verifier.open(one, sender, now_ms, recipient)
        if isinstance(row, Invalid):
            return row
        found = OwnMessage(row, is_own, recipient)
        return found if self._is_wanted(found, wish.destination) else Invalid("other_destination")

    def _recipient(self, one: Deliver) -> Recipient | None:
        """Return the member that an own dm went to, None for itself and for other messages."""
        envelope = one.envelope
        if isinstance(envelope, Envelope):
            kind: object = envelope.destination_kind
            ref: object = envelope.destination_ref
        else:
            kind, ref = envelope.get("destination_kind"), envelope.get("destination_ref")
        if kind != "dm" or not isinstance(ref, str) or self._verifier.is_own_key(ref):
            return None
        peer = self._directory.by_key(ref)
        return None if peer is not None and peer.member_id == self._own_id else Recipient(ref, peer)

    def _is_wanted(self, one: OwnMessage, destination: str | None) -> bool:
        if destination is None:
            return True
        if destination.startswith("#"):
            return (one.row.kind, one.row.topic) == ("topic", destination[1:])
        if destination.startswith("queue:"):
            return (one.row.kind, one.row.topic) == ("queue", destination.removeprefix("queue:"))
        with_peer = self._directory.by_key(destination)
        recipient = None if one.recipient is None else one.recipient.peer
        others = {one.row.sender_member_id, None if recipient is None else recipient.member_id}
        return one.row.kind == "dm" and with_peer is not None and with_peer.member_id in others
