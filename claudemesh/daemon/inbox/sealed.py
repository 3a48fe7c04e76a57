"""Messages whose body is still sealed, in inbox.db.

Such a message is stored with its envelope. The API lists it as sealed; it is not published and starts no
hooks. When it is opened, it takes the next seq and counts as unread, like a message that arrives at that
moment. So each follower gets it once. One whose body does not open under the right key is set aside: it stays
as it is, with the reason.

Crash story: body, new seq and hook jobs are written and the envelope is removed in one transaction, before
the message is published. A crash before the commit leaves the message sealed, and the next start tries it
again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import orjson
from msgspec import Struct

from claudemesh.daemon.inbox.attached import add_files
from claudemesh.daemon.inbox.hook_jobs import add_message_jobs
from claudemesh.daemon.inbox.items import items_of
from claudemesh.daemon.inbox.positions import Positions
from claudemesh.protocol.sealing import NO_RECEIPTS, Receipting
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")


class Sealed(Struct, frozen=True):
    """A message that waits for a key."""

    id: str
    sender_member_id: str
    envelope: bytes


class WithoutText(Struct, frozen=True):
    """The messages without a text: `waiting` for a key, the first received at `since_ms`, and set aside."""

    waiting: int
    since_ms: int | None
    unreadable: int


class OpenedBody(Struct, frozen=True):
    """The content of a sealed message whose key has arrived, and the hooks that it raises."""

    body: str
    meta: str | None
    hooks: tuple[str, ...]
    attachments: str | None = None
    from_session: str | None = None
    to_session: str | None = None
    receipting: Receipting = NO_RECEIPTS
    hops: int = 0
    in_loop: bool = False


class SealedMessages:
    """The sealed messages in inbox.db."""

    def __init__(self, database: Database, positions: Positions) -> None:
        self._db = database
        self._positions = positions

    async def senders(self) -> list[str]:
        """Return the member ids of senders with messages that are still sealed."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["sealed_senders"]).fetchall())
        return [row[0] for row in rows]

    async def waiting(self, senders: Collection[str]) -> list[str]:
        """Return the ids of messages of these senders that wait for a key, oldest first."""
        wanted = (orjson.dumps(list(senders)).decode(),)
        rows = await self._db.run(lambda raw: raw.execute(_Q["sealed_ids"], wanted).fetchall())
        return [row[0] for row in rows]

    async def of(self, ids: Sequence[str]) -> list[Sealed]:
        """Return those of these messages that still wait, in the same order."""
        wanted = (orjson.dumps(ids).decode(),)
        rows = await self._db.run(lambda raw: raw.execute(_Q["sealed_of"], wanted).fetchall())
        return [Sealed(*row) for row in rows]

    async def without_text(self) -> WithoutText:
        """Count the messages without a text."""
        row = await self._db.run(lambda raw: raw.execute(_Q["without_text"]).fetchone())
        return WithoutText(*row)

    async def drop(self, ids: Sequence[str]) -> None:
        """Delete messages that consist of receipts, behind the commit of the receipts."""
        await self._db.transaction(lambda raw: raw.executemany(_Q["drop"], [(one,) for one in ids]))

    async def store(
        self, opened: Sequence[tuple[str, OpenedBody]], unreadable: Sequence[tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Write opened bodies in one transaction and return the messages in their new form.

        `unreadable` are messages whose body does not open under the right key, each with the reason. They are
        set aside.
        """
        reserved = await self._positions.reserve(len(opened))

        def work(raw: sqlite3.Connection) -> list[dict[str, Any]]:
            if reserved is not None:
                self._positions.note(raw, reserved)
            items: list[dict[str, Any]] = []
            for broker_message_id, content in opened:
                seq = raw.execute(_Q["positions_last"]).fetchone()[0] + 1
                text = (content.body, content.meta, broker_message_id, content.attachments)
                wish = content.receipting.wish
                names = (content.from_session, content.to_session)
                values = (seq, *text, *names, wish, content.hops, content.in_loop)
                items += items_of(raw.execute(_Q["unseal"], values))
                raw.execute(_Q["untell_besides"], (broker_message_id,))
                add_files(raw, broker_message_id, content.attachments)
                raw.execute(_Q["note_seq"], (seq,))
                add_message_jobs(raw, broker_message_id, content.hooks)
            raw.executemany(_Q["remove_sealed"], [(broker_message_id,) for broker_message_id, _ in opened])
            raw.executemany(_Q["set_aside"], [(reason, message_id) for message_id, reason in unreadable])
            failpoint("unseal.before_commit")
            return items

        items = await self._db.transaction(work)
        self._positions.used(max((item["seq"] for item in items), default=0))
        failpoint("unseal.after_commit")
        return items
