"""inbox.db: each message once, durable before it is acknowledged (docs/spec/daemon.md, Inbox).

Crash story: the row is committed before the acknowledgement leaves. A repeated delivery conflicts with the
unique key and is acknowledged again, without a second event.

Retention is measured by the host-lived clock, for read and unread messages alike. Each row is stamped with
the lived time of its commit, and is pruned when that clock has advanced by the retention. The wall clock
takes no part.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from claudemesh.daemon.inbox.attached import ReceivedFiles, add_files, shown_attachments
from claudemesh.daemon.inbox.due import DueReceipts
from claudemesh.daemon.inbox.hook_jobs import HookJobs, add_message_jobs
from claudemesh.daemon.inbox.items import UNTRUSTED, items_of, sent_at
from claudemesh.daemon.inbox.positions import Positions, salvage_last
from claudemesh.daemon.inbox.sealed import SealedMessages
from claudemesh.daemon.inbox.selection import ALL, Selection
from claudemesh.daemon.inbox.untold import UntoldMessages
from claudemesh.home.recovered import begin_rebuild
from claudemesh.protocol.jsontext import JsonText
from claudemesh.protocol.sealing import NO_RECEIPTS, Receipting
from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.errors import StorageCorrupt
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sidefiles import WriteFile, write_never
from claudemesh.runtime.sqlite import Database, OnFailure
from claudemesh.runtime.sqlite_check import refuse_emptied

log = get_logger("inbox")

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")
_READABLE = Selection(readable=True)
_SEQ = re.compile(r"[0-9]{1,18}")
MOST_UNREAD = 10_000
_MARKS = {"notified": "mark_notified", "shown": "mark_shown", "acked": "mark_acked"}


class InboxRow(msgspec.Struct, frozen=True, gc=False):
    """A verified message. `body` is None while the key is missing; `sealed` is the envelope then.

    `unreadable` is the reason for which a body does not open under the right key.
    """

    id: str
    client_message_id: str
    sender_member_id: str
    broker_message_id: str
    # None for a message that this host has sent to itself.
    history_id: int | None
    mesh: str
    kind: str
    topic: str | None
    sender_pubkey: str
    sender_name: str
    body: str | None
    meta: str | None
    priority: str
    received_at: int
    reply_to_id: str | None
    # Whether the sender mentions this member.
    mentioned: bool = False
    # The announced files with their keys, as JSON.
    attachments: str | None = None
    # The sender's session, and the session of this host that the message is for.
    from_session: str | None = None
    to_session: str | None = None
    # Automatic answers that led to it, and whether it came beyond the automatic turns of its sessions.
    hops: int = 0
    in_loop: bool = False
    # The receipt that the sender asks for, or the receipts that the message consists of.
    receipting: Receipting = NO_RECEIPTS
    sealed: bytes | None = None
    unreadable: str | None = None
    # Names of the hooks that it starts.
    hooks: tuple[str, ...] = ()
    # Whether it was read back from the broker's history (inbox/rebuild.py).
    recovered: bool = False
    # The fingerprint of the request of a message that this host has sent to itself.
    request_fingerprint: bytes | None = None


class InboxStore:
    """The inbox on disk."""

    def __init__(self, database: Database, lived: LivedClock, positions: Positions) -> None:
        self._db = database
        self._lived = lived
        self.positions = positions
        self.jobs = HookJobs(database)
        self.sealed = SealedMessages(database, positions)
        self.files = ReceivedFiles(database)
        self.receipts = DueReceipts(database)
        self.untold = UntoldMessages(database, self.receipts.wake)
        self._has_recovered = False

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock,
        on_failure: OnFailure | None = None,
        lived: LivedClock | None = None,
        write: WriteFile = write_never,
    ) -> InboxStore:
        """Open or create inbox.db. A damaged file is moved aside and a new one is created, so that the
        daemon can receive: an unacknowledged message is still at the broker. The seq continues after the
        last one given out. `write` writes a side file whose first write has failed."""
        migrations = load_migrations("claudemesh.daemon.sql.inbox")
        salvaged = 0
        position = path.with_name("inbox_position")
        try:
            refuse_emptied(path, position)
            database = await Database.open(path, migrations, on_failure)
        except StorageCorrupt as error:
            moved = begin_rebuild(path, clock.wall_ms())
            salvaged = salvage_last(moved)
            log.error("inbox_corruption_recovered", moved_to=moved.name, error=str(error))
            database = await Database.open(path, migrations, on_failure)
        positions = Positions(position, write)
        store = cls(database, lived or LivedClock(clock), positions)
        try:
            await database.transaction(lambda raw: positions.open(raw, salvaged))
            await store._take_up_time()
            [store._has_recovered] = await database.run(
                lambda raw: raw.execute(_Q["has_recovered"]).fetchone()
            )
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def database(self) -> Database:
        """The open database, for maintenance."""
        return self._db

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()

    async def insert(self, rows: Sequence[InboxRow]) -> Sequence[int | None]:
        """Write messages in one transaction; return the seq of each, or None for one that was stored
        before."""

        reserved = await self.positions.reserve(len(rows))
        self._has_recovered |= any(row.recovered for row in rows)
        has_recovered = self._has_recovered

        def work(raw: sqlite3.Connection) -> list[int | None]:
            if reserved is not None:
                self.positions.note(raw, reserved)
            lived_ms = self._lived.now_ms()
            if has_recovered:
                delivered = [row for row in rows if not row.recovered]
                ids = [(row.sender_member_id, row.client_message_id) for row in delivered]
                raw.executemany(_Q["replace_recovered"], ids)
            below, seen = self.positions.below, _seen(raw, rows)
            seqs = [
                None
                if (row.sender_member_id, row.client_message_id) in seen
                else _insert(raw, row, lived_ms, below(raw) if row.recovered else None)
                for row in rows
            ]
            failpoint("receive.before_commit")
            return seqs

        seqs = await self._db.transaction(work)
        if any(row.receipting.wish is not None for row in rows):
            self.receipts.wake()
        self.positions.used(max((seq for seq in seqs if seq is not None), default=0))
        failpoint("receive.after_commit")
        return seqs

    async def local_of(
        self, sender_member_id: str, client_message_id: str
    ) -> tuple[str, bytes | None] | None:
        """Return the message id and the fingerprint of a message that this host has sent to itself."""
        values = (sender_member_id, client_message_id)
        row: tuple[str, bytes | None] | None = await self._db.run(
            lambda raw: raw.execute(_Q["local_of"], values).fetchone()
        )
        return row

    async def page(
        self, chosen: Selection = ALL, *, after: int | None = None, limit: int = 100
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return up to `limit` messages that follow the seq `after` in the selection's order, and the next
        cursor or None."""
        statement, values = chosen.statement(after, limit + 1)
        rows = await self._db.run(lambda raw: items_of(raw.execute(statement, values)))
        more = str(rows[limit - 1]["seq"]) if len(rows) > limit else None
        return rows[:limit], more

    async def get(self, key: str) -> dict[str, Any] | None:
        """Return a message by its seq or by any of its ids. When two have the same `client_message_id`, the
        newer one."""
        seq = int(key) if _SEQ.fullmatch(key) else None

        def work(raw: sqlite3.Connection) -> list[dict[str, Any]]:
            return items_of(raw.execute(_Q["get"], (seq, key))) or items_of(
                raw.execute(_Q["get_by_sender"], (key,))
            )

        items = await self._db.run(work)
        return items[0] if items else None

    async def replay(self, after_seq: int, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` messages after a seq, without sealed ones, for a stream that resumes."""
        items, _ = await self.page(_READABLE, after=after_seq, limit=limit)
        return items

    async def position(self) -> int:
        """Return the greatest seq so far, 0 before the first message. Each later message has a greater
        one."""
        row = await self._db.run(lambda raw: raw.execute(_Q["positions_last"]).fetchone())
        position: int = row[0]
        return position

    async def unread(self) -> int:
        """Return the number of messages that are not acknowledged, or `MOST_UNREAD` when there are more."""
        row = await self._db.run(lambda raw: raw.execute(_Q["unread_count"], (MOST_UNREAD,)).fetchone())
        count: int = row[0]
        return count

    async def activity(self, spans: Sequence[tuple[int, int]], most: int) -> list[int]:
        """Return how many messages that are kept arrived in each span of wall time, each counted up to
        `most`."""
        values = (orjson.dumps(spans).decode(), most)
        rows = await self._db.run(lambda raw: raw.execute(_Q["activity"], values).fetchall())
        return [row[0] for row in rows]

    async def mark(self, ids: Sequence[str], as_: str, now_ms: int, session: str | None = None) -> int:
        """Set the time at which messages were `notified`, `shown` or `acked`, unless it is set, and the
        session that did it. Return the number of known ids."""
        query = _Q[_MARKS[as_]]

        def work(raw: sqlite3.Connection) -> int:
            count = raw.executemany(query, [(now_ms, one, session) for one in ids]).rowcount
            if as_ == "notified" and session is not None:
                raw.execute(_Q["told_besides"], {"ids": orjson.dumps(ids).decode(), "session": session})
            failpoint("mark.before_commit")
            return count

        count = await self._db.transaction(work)
        self.receipts.wake()
        return count

    async def note_reply(self, broker_message_id: str, now_ms: int, session: str | None) -> None:
        """Acknowledge the message that a reply answers, if this host has it."""
        found = await self._db.run(lambda raw: raw.execute(_Q["answered"], (broker_message_id,)).fetchall())
        if found:
            await self.mark([row[0] for row in found], "acked", now_ms, session)

    async def prune(self, kept_ms: int, remembered_ms: int, limit: int) -> int:
        """Delete up to `limit` messages stored at least `kept_ms` of lived time ago; return their number.

        Their ids are kept for another `remembered_ms`, to recognise a repeated delivery.
        """
        now_ms = self._lived.now_ms()
        before_ms = now_ms - kept_ms

        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["prune_remember"], (before_ms, now_ms, limit))
            removed = raw.execute(_Q["prune"], (before_ms, limit)).rowcount
            raw.execute(_Q["forget_seen"], (now_ms - remembered_ms,))
            return removed

        return await self._db.transaction(work)

    async def remove_acknowledged(self, limit: int) -> int:
        """Delete the oldest acknowledged messages, up to `limit`, and keep their ids like `prune`; return
        their number."""

        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["acked_remember"], (self._lived.now_ms(), limit))
            return raw.execute(_Q["acked_remove"], (limit,)).rowcount

        return await self._db.transaction(work)

    async def _take_up_time(self) -> None:
        """Set the lived clock to the newest stamp at least, and stamp rows of an older schema with the
        present."""

        def work(raw: sqlite3.Connection) -> None:
            self._lived.at_least(raw.execute(_Q["newest_lived"]).fetchone()[0])
            now_ms = self._lived.now_ms()
            raw.execute(_Q["stamp_messages"], (now_ms,))
            raw.execute(_Q["stamp_seen"], (now_ms,))

        await self._db.transaction(work)


def item(row: InboxRow, seq: int) -> dict[str, Any]:
    """Return a message in the form that the API and the events use."""
    return {
        "seq": seq,
        "id": row.id,
        "client_message_id": row.client_message_id,
        "sender_member_id": row.sender_member_id,
        "broker_message_id": row.broker_message_id,
        "history_id": row.history_id,
        "mesh": row.mesh,
        "kind": row.kind,
        "topic": row.topic,
        "sender_pubkey": row.sender_pubkey,
        "sender_name": row.sender_name,
        "body": row.body,
        "meta": None if row.meta is None else JsonText(row.meta),
        "priority": row.priority,
        "sent_at": sent_at(row.broker_message_id),
        "received_at": iso_ms(row.received_at),
        "reply_to_id": row.reply_to_id,
        "from_session": row.from_session,
        "to_session": row.to_session,
        "for_session": row.to_session,
        "hops": row.hops,
        "in_loop": row.in_loop,
        "mentioned": row.mentioned,
        "notified_at": None,
        "shown_at": None,
        "acked_at": None,
        "seen_by": None,
        "recovered": row.recovered,
        "sealed": row.body is None,
        "unreadable": row.unreadable,
        **shown_attachments(row.attachments),
        "untrusted": UNTRUSTED,
    }


def _seen(raw: sqlite3.Connection, rows: Sequence[InboxRow]) -> set[tuple[str, str]]:
    """Return sender and client_message_id of those messages that were stored and pruned before."""
    ids = orjson.dumps([(row.sender_member_id, row.client_message_id) for row in rows]).decode()
    return set(raw.execute(_Q["seen"], (ids,)))


def _insert(raw: sqlite3.Connection, row: InboxRow, lived_ms: int, seq: int | None) -> int | None:
    values = (
        row.id,
        row.client_message_id,
        row.sender_member_id,
        row.broker_message_id,
        row.history_id,
        row.mesh,
        row.kind,
        row.topic,
        row.sender_pubkey,
        row.sender_name,
        row.body,
        row.meta,
        row.priority,
        row.received_at,
        row.reply_to_id,
        lived_ms,
        row.mentioned,
        row.attachments,
        row.from_session,
        row.to_session,
        row.unreadable,
        row.receipting.wish,
        row.recovered,
        row.hops,
        row.in_loop,
        row.request_fingerprint,
        seq,
    )
    # Both numbers are of this statement. A row that the statement returned would cost a tenth of it.
    inserted = raw.execute(_Q["insert"], values)
    if inserted.rowcount == 0:
        return None
    if row.sealed is not None:
        raw.execute(_Q["insert_sealed"], (row.id, row.sealed))
    add_files(raw, row.id, row.attachments)
    if row.hooks:
        add_message_jobs(raw, row.id, row.hooks)
    return inserted.lastrowid
