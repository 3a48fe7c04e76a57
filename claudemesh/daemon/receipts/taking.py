"""Taking of receipts: what the recipients of this host's sends tell (docs/spec/daemon.md, Receipts)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.outbox.told import Advance, Teller, ToldReceipts
from claudemesh.protocol.receipts import Receipt, ReceiptState
from claudemesh.runtime.clock import iso_ms

# The receipts of one event, so that a large batch is no single long line.
_PER_EVENT = 100


class ReceiptTaking:
    """Merges receipts into the outbox, then publishes them and releases their waiters."""

    def __init__(
        self,
        told: ToldReceipts,
        directory: Directory,
        publish: Callable[[Iterable[BusEvent]], None],
        release: Callable[[str], None],
        on_taken: Callable[[int], None],
    ) -> None:
        """`release` gets the client_message_id of a send that has advanced. `on_taken` gets the number of
        receipts that have advanced a send."""
        self._told = told
        self._directory = directory
        self._publish = publish
        self._release = release
        self._on_taken = on_taken

    async def take(self, receipts: Sequence[tuple[str, tuple[Receipt, ...]]]) -> None:
        """Write receipts of genuine messages, each with the member that tells them."""
        found = []
        for member_id, told in receipts:
            peer = self._directory.by_id(member_id)
            if peer is not None:
                teller = Teller(member_id, peer.name, (peer.pubkey, *peer.earlier_keys))
                found += [(teller, one) for one in told]
        if not found:
            return
        advances = await self._told.apply(found)
        self._on_taken(len(advances))
        self._publish(_events(advances))
        for advance in advances:
            self._release(advance.receipt.client_message_id)

    async def take_own(self, member_id: str, receipts: Sequence[Receipt]) -> frozenset[str]:
        """Write receipts of messages that this host has sent to itself. Return the ids of known sends.

        A send whose row is not in the outbox yet is told later.
        """
        known = await self._told.known([one.client_message_id for one in receipts])
        await self.take([(member_id, tuple(one for one in receipts if one.client_message_id in known))])
        return known


def _events(advances: Sequence[Advance]) -> Iterator[BusEvent]:
    for _, group in groupby(advances, key=lambda one: one.teller.member_id):
        of_member = list(group)
        for first in range(0, len(of_member), _PER_EVENT):
            part = of_member[first : first + _PER_EVENT]
            teller = part[0].teller
            items = [{"id": one.row_id, **_item(one.receipt)} for one in part]
            data = {"member_id": teller.member_id, "name": teller.name, "items": items}
            yield BusEvent("receipts", data)


def _item(receipt: Receipt) -> dict[str, str | None]:
    return {"client_message_id": receipt.client_message_id, **states_of(receipt)}


def states_of(receipt: Receipt) -> dict[str, str | None]:
    """Return the furthest state, and time and session of each state, as the API shows them."""
    state = receipt.state
    times = {f"{one.word}_at": receipt.at(one) for one in ReceiptState}
    shown = {name: None if at is None else iso_ms(at) for name, at in times.items()}
    by = {f"{one.word}_by": receipt.by(one) for one in ReceiptState if one is not ReceiptState.DELIVERED}
    return {"state": None if state is None else state.word, **shown, **by, "session": receipt.session}
