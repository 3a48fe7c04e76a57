"""Assembly of the parts that tell and take receipts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.daemon.parts import Base, Receiving, Sending, Stores
from claudemesh.daemon.receipts.taking import ReceiptTaking
from claudemesh.daemon.receipts.telling import OwnReceipts, ReceiptTelling


def receipt_side(
    base: Base, stores: Stores, sending: Sending, receiving: Receiving, names_sessions: Callable[[], bool]
) -> ReceiptTelling:
    """Return the part that tells receipts, and let the receiving side pass on those that arrive."""
    taking = ReceiptTaking(
        stores.outbox.receipts,
        stores.directory,
        base.bus.publish,
        stores.watchers.release,
        base.metrics.receipts_taken,
    )

    async def take(rows: Sequence[InboxRow]) -> None:
        await taking.take([(row.sender_member_id, row.receipting.receipts) for row in rows])

    receiving.receiver.take_receipts = take
    receiving.unsealer.take_receipts = taking.take
    return ReceiptTelling(
        stores.inbox.receipts,
        stores.directory,
        sending.submitter.submit,
        base.new_id,
        lambda: sending.body_limit.last,
        names_sessions,
        base.metrics.receipts_told,
        OwnReceipts(base.membership.member_id, taking.take_own),
    )
