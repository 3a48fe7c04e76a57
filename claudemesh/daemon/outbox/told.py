"""Receipts that recipients have told of the sends of this host, in outbox.db.

A receipt counts for a send that asked for one, and only from the member that it is about: from the recipient
of a dm, and from each member about itself for a topic or a queue.

Crash story: a receipt is merged into the stored one and committed before its delivery is acknowledged. A
crash before that brings it again, and merging it twice changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import orjson
from msgspec import Struct

from claudemesh.protocol.receipts import Receipt, ReceiptState, merge
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")


class Teller(Struct, frozen=True):
    """A member that tells receipts. `keys` are its present key and the proven ones before it."""

    member_id: str
    name: str
    keys: tuple[str, ...]


class Advance(Struct, frozen=True):
    """A send whose state at a recipient has advanced: the row's id, and all that the recipient has told."""

    row_id: str
    teller: Teller
    receipt: Receipt


class RecipientState(Struct, frozen=True):
    """The states of a send at one recipient."""

    member_id: str
    name: str
    receipt: Receipt


class Told(Struct, frozen=True):
    """All that is known of a send from its recipients. `counts` has each by its furthest state."""

    recipients: Sequence[RecipientState] = ()
    counts: Mapping[ReceiptState, int] | None = None

    @property
    def furthest(self) -> ReceiptState | None:
        """The furthest state at any recipient."""
        return max(self.counts or (), default=None)


class ToldReceipts:
    """The receipts of this host's sends."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def apply(self, receipts: Sequence[tuple[Teller, Receipt]]) -> Sequence[Advance]:
        """Merge receipts in one transaction. Return those that have advanced a state."""

        def work(raw: sqlite3.Connection) -> list[Advance]:
            found = [one for teller, receipt in receipts for one in _apply(raw, teller, receipt)]
            failpoint("receipt.before_apply_commit")
            return found

        return await self._db.transaction(work)

    async def known(self, client_message_ids: Sequence[str]) -> frozenset[str]:
        """Return those of these ids that belong to a send of this host."""
        wanted = (orjson.dumps(list(client_message_ids)).decode(),)
        rows = await self._db.run(lambda raw: raw.execute(_Q["known_sends"], wanted).fetchall())
        return frozenset(row[0] for row in rows)

    async def of(self, row_id: str, limit: int) -> Told:
        """Return the states of a send, those of the first `limit` recipients by name."""

        def work(raw: sqlite3.Connection) -> Told:
            rows = raw.execute(_Q["receipts_of"], (row_id, limit)).fetchall()
            counts = {
                ReceiptState(state): count for state, count in raw.execute(_Q["receipt_counts"], (row_id,))
            }
            recipients = [
                RecipientState(member_id, name, _receipt("", *rest)) for member_id, name, _, *rest in rows
            ]
            return Told(recipients, counts)

        return await self._db.run(work)


def _apply(raw: sqlite3.Connection, teller: Teller, receipt: Receipt) -> Iterator[Advance]:
    row = raw.execute(_Q["receipt_row"], (receipt.client_message_id, teller.member_id)).fetchone()
    if row is None:
        return
    row_id, wish, recipient, *known = row
    if wish is None or (recipient is not None and recipient not in teller.keys):
        return
    before = _receipt(receipt.client_message_id, *known)
    merged = merge(before, receipt)
    if merged == before or merged.state is None:
        return
    times = [merged.at(state) for state in ReceiptState]
    by = (merged.notified_by, merged.shown_by, merged.acked_by)
    values = (row_id, teller.member_id, teller.name, merged.state, *times, *by)
    raw.execute(_Q["receipt_write"], values)
    if merged.state > (before.state or 0):
        yield Advance(row_id, teller, merged)


def _receipt(client_message_id: str, *columns: object) -> Receipt:
    delivered_at, notified_at, shown_at, acked_at, *by = columns
    notified_by, shown_by, acked_by = by
    return Receipt(
        client_message_id=client_message_id,
        delivered_at=delivered_at,  # type: ignore[arg-type]
        notified_at=notified_at,  # type: ignore[arg-type]
        shown_at=shown_at,  # type: ignore[arg-type]
        acked_at=acked_at,  # type: ignore[arg-type]
        notified_by=notified_by,  # type: ignore[arg-type]
        shown_by=shown_by,  # type: ignore[arg-type]
        acked_by=acked_by,  # type: ignore[arg-type]
    )
