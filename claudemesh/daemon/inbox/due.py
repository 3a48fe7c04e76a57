"""Receipts that this host owes to the senders of its messages, in inbox.db.

Crash story: the state of a message and the debt of its receipt are one transaction, so a state is told if and
only if it is on the disk. The debt is removed behind the commit that puts the receipt into the outbox. A
crash between the two tells the state once more, which changes nothing at its sender.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from claudemesh.protocol.receipts import Receipt, ReceiptState
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")
_SENDERS = 1000


class DueReceipt(Struct, frozen=True):
    """A receipt that is to be told. `due` is the state of the message when it was read."""

    inbox_id: str
    due: ReceiptState
    receipt: Receipt


class DueReceipts:
    """The receipts that are yet to be told."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._waiting = asyncio.Event()
        # An earlier run of the daemon may have left some.
        self._waiting.set()

    def wake(self) -> None:
        """Note that a receipt may be due."""
        self._waiting.set()

    async def wait(self) -> None:
        """Wait until a receipt may be due."""
        await self._waiting.wait()
        self._waiting.clear()

    async def senders(self) -> Sequence[str]:
        """Return the members that are to be told, at most 1000 of them."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["receipt_senders"], (_SENDERS,)).fetchall())
        return [row[0] for row in rows]

    async def of(self, sender_member_id: str, limit: int) -> Sequence[DueReceipt]:
        """Return up to `limit` receipts for a member, those of its oldest messages first."""
        values = (sender_member_id, limit)
        rows = await self._db.run(lambda raw: raw.execute(_Q["receipts_due"], values).fetchall())
        return [_due(*row) for row in rows]

    async def told(self, receipts: Sequence[DueReceipt]) -> None:
        """Note that receipts are in the outbox, or have no receiver."""

        def work(raw: sqlite3.Connection) -> None:
            raw.executemany(_Q["receipt_told"], [(one.inbox_id, one.due) for one in receipts])

        await self._db.transaction(work)


def _due(
    inbox_id: str,
    due: int,
    wish: int,
    client_message_id: str,
    received_at: int,
    notified_at: int | None,
    shown_at: int | None,
    acked_at: int | None,
    notified_by: str | None,
    shown_by: str | None,
    acked_by: str | None,
) -> DueReceipt:
    """Return a receipt with the states up to the one that its sender asks for."""
    receipt = Receipt(
        client_message_id=client_message_id,
        delivered_at=received_at,
        notified_at=notified_at if wish > ReceiptState.NOTIFIED else None,
        shown_at=shown_at if wish >= ReceiptState.SHOWN else None,
        acked_at=acked_at if wish >= ReceiptState.ACKED else None,
        notified_by=notified_by if wish > ReceiptState.NOTIFIED else None,
        shown_by=shown_by if wish >= ReceiptState.SHOWN else None,
        acked_by=acked_by if wish >= ReceiptState.ACKED else None,
    )
    return DueReceipt(inbox_id, ReceiptState(due), receipt)
