"""Store of the outbox: outbox.db, in which each write is one transaction on the connection's own thread.

The crash story of a turn is in outbox/turn.py. The totals (rows by status, bytes not yet sent) are counted
at the start and updated in memory by every write, so that neither a send nor a health request has to read
the waiting rows.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from claudemesh.daemon.outbox.done import DoneSends
from claudemesh.daemon.outbox.rows import dicts, get_row, move, page_statement, public
from claudemesh.daemon.outbox.states import Answer, KnownRow, Status, Step, may_move
from claudemesh.daemon.outbox.told import ToldReceipts
from claudemesh.daemon.outbox.turn import REFUSE, TAKE, answer_without_space, find, submit, take_turn
from claudemesh.daemon.outbox.types import (
    Expired,
    Now,
    Settlement,
    Submission,
    TakenRow,
    Totals,
    Turn,
)
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import first_ulid
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database, OnFailure

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")
_CHAIN_LIMIT = 100
_RECOVER = Step(Status.INFLIGHT, Status.PENDING)

R = TypeVar("R")


class OutboxStore:
    """The outbox on disk."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.done = DoneSends(database)
        self.receipts = ToldReceipts(database)
        self._totals = Totals()
        # A write was cancelled while it ran. It may have been committed or not, so the rows must be counted
        # again.
        self._uncounted = True

    @classmethod
    async def open(cls, path: Path, on_failure: OnFailure | None = None) -> OutboxStore:
        """Open or create outbox.db. Raise `StorageCorrupt` when it is damaged: it is never replaced
        silently."""
        migrations = load_migrations("claudemesh.daemon.sql.outbox")
        return cls(await Database.open(path, migrations, on_failure))

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()

    @property
    def database(self) -> Database:
        """The open database, for maintenance."""
        return self._db

    @property
    def schema_version(self) -> int:
        """The schema version of the file."""
        return self._db.schema_version

    @property
    def queued_bytes(self) -> int:
        """The payload bytes of pending and inflight rows."""
        return self._totals.queued_bytes

    async def turn(
        self,
        submissions: Sequence[Submission],
        settlements: Sequence[Settlement],
        now: Now,
        limit: int,
        inline_bytes: int | None = None,
    ) -> Turn:
        """Write results, look up and insert sends, and take up to `limit` ready rows, in one commit.

        Sends are answered in order. Rows with more than `inline_bytes` die unsent. After a `StorageError`
        nothing of it has happened.
        """

        def work(raw: sqlite3.Connection) -> tuple[Turn, Totals]:
            turn = take_turn(raw, submissions, settlements, now, limit, inline_bytes)
            return turn, turn.change

        turn = await self._write(work)
        if submissions:
            failpoint("submit.after_commit")
        return turn

    async def answer_without_space(self, submissions: Sequence[Submission]) -> Sequence[Answer]:
        """Answer known ids from their rows and new ones with 507, because the disk is full."""
        return await self._db.run(lambda raw: answer_without_space(raw, submissions, self._db.path.parent))

    async def newest_stamp(self) -> int | None:
        """Return the lived time of the newest row, or None. The lived clock must not be behind it."""

        def work(raw: sqlite3.Connection) -> int | None:
            found: tuple[int | None] | None = raw.execute(_Q["newest_stamp"]).fetchone()
            return None if found is None else found[0]

        return await self._db.run(work)

    async def recover(self, now_ms: int, longest_wait_ms: int) -> int:
        """Make rows in flight pending at the start, and shorten every wait to the longest backoff; return
        the number of rows in flight.

        `now_ms` is lived time. The age of rows of a schema without it begins now.
        """

        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["stamp_unstamped"], (now_ms,))
            raw.execute(_Q["stamp_undated"], (now_ms,))
            count = raw.execute(_Q["recover_inflight"], (_RECOVER.target.value,)).rowcount
            raw.execute(_Q["clamp_waits"], (now_ms + longest_wait_ms,))
            return count

        count = await self._db.transaction(work)
        await self._count()
        return count

    async def expire(self, lived_ms: int, broker_ms: int, limit: int) -> Sequence[Expired]:
        """Make up to `limit` pending rows dead: those accepted before `lived_ms`, or first sent before
        `broker_ms`.

        The reason of each states whether the broker may have accepted it.
        """

        def work(raw: sqlite3.Connection) -> tuple[list[Expired], Totals]:
            found = [
                *raw.execute(_Q["too_old"], (lived_ms, limit)),
                *raw.execute(_Q["sent_too_long_ago"], (broker_ms, limit)),
            ]
            rows = {row[0]: row for row in found}
            reasons = [
                ((_age_reason(attempts, sent),), row_id) for row_id, _, _, attempts, sent in rows.values()
            ]
            move(raw, "refuse", REFUSE, reasons)
            size = sum(row[2] for row in rows.values())
            change = Totals(pending=-len(rows), dead=len(rows), queued_bytes=-size)
            return [Expired(row[0], row[1]) for row in rows.values()], change

        return await self._write(work)

    async def drop_payloads(self, before_ms: int, limit: int) -> int:
        """Drop the payloads of up to `limit` rows done before `before_ms` of lived time; return their
        number. Id, fingerprint and broker ids stay."""
        return await self._db.transaction(
            lambda raw: raw.execute(_Q["drop_payloads"], (before_ms, limit)).rowcount
        )

    async def prune(self, limit: int) -> tuple[int, int]:
        """Drop payloads of up to `limit` done and aborted rows of any age; return the number of rows and of
        bytes.

        Their ids and fingerprints stay: a retry is answered as before.
        """

        def work(raw: sqlite3.Connection) -> tuple[int, int]:
            rows = raw.execute(_Q["prunable"], (limit, limit)).fetchall()
            raw.executemany(_Q["prune"], [(rowid,) for rowid, _ in rows])
            return len(rows), sum(size for _, size in rows)

        return await self._db.transaction(work)

    async def find(self, client_message_id: str) -> tuple[KnownRow, bytes] | None:
        """Return a row and its payload by its client_message_id."""
        found = await self._db.run(lambda raw: find(raw, [client_message_id]))
        return found.get(client_message_id)

    async def get(self, key: str) -> dict[str, Any] | None:
        """Return one row by its id or client_message_id, with the `chain` of rows that superseded it."""

        def work(raw: sqlite3.Connection) -> dict[str, Any] | None:
            row = get_row(raw, key)
            if row is None:
                return None
            chain: list[dict[str, Any]] = []
            follow = row["superseded_by"]
            while follow is not None and len(chain) < _CHAIN_LIMIT:
                successor = get_row(raw, follow)
                if successor is None:
                    break
                chain.append(public(successor))
                follow = successor["superseded_by"]
            return {**public(row), "chain": chain}

        return await self._db.run(work)

    async def raw(self, key: str) -> dict[str, Any] | None:
        """Return one row with every column, or None."""
        return await self._db.run(lambda raw: get_row(raw, key))

    async def page(
        self, status: Status | None, limit: int, after: str | None, *, newest_first: bool = False
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return up to `limit` rows after a cursor in this order, and the cursor of the next page or None."""
        statement = page_statement(status, newest_first=newest_first, first=after is None)
        values = {"after": after and int(after), "limit": limit + 1}
        rows = await self._db.run(lambda raw: dicts(raw.execute(statement, values)))
        more = str(rows[limit - 1]["cursor"]) if len(rows) > limit else None
        return [public(row) for row in rows[:limit]], more

    async def counts(self) -> dict[str, int]:
        """Return the number of pending, inflight and dead rows."""
        if self._uncounted:
            await self._count()
        totals = self._totals
        return {"pending": totals.pending, "inflight": totals.inflight, "dead": totals.dead}

    async def activity(self, spans: Sequence[tuple[int, int]], most: int) -> list[int]:
        """Return how many sends were made in each span of wall time, each counted up to `most`.

        The time of a send is that of its id, so only the index of the ids is read.
        """
        ranges = [(first_ulid(start), first_ulid(end)) for start, end in spans]
        values = (orjson.dumps(ranges).decode(), most)
        rows = await self._db.run(lambda raw: raw.execute(_Q["activity"], values).fetchall())
        return [row[0] for row in rows]

    async def oldest_pending(self) -> int | None:
        """Return the lived time at which the oldest pending send was accepted, or None."""

        def work(raw: sqlite3.Connection) -> int | None:
            found: tuple[int] | None = raw.execute(_Q["oldest_pending"]).fetchone()
            return None if found is None else found[0]

        return await self._db.run(work)

    async def replace(
        self, key: str, successor: Submission | None, *, attempts: int, by: str, now: Now
    ) -> tuple[Status | None, Answer | None]:
        """Abort a dead or pending row, and insert its successor if there is one, in one transaction.

        Returns the row's status before it (None: no such row) and the successor's answer. A row of another
        status stays unchanged, and so does a row that was sent after `attempts` was read.
        """

        def work(raw: sqlite3.Connection) -> tuple[tuple[Status | None, Answer | None], Totals]:
            row = get_row(raw, key)
            if row is None:
                return (None, None), Totals()
            status = Status(row["status"]) if row["attempts"] == attempts else Status.INFLIGHT
            if not may_move(status, Status.ABORTED):
                return (status, None), Totals()
            answers, _, change = (
                submit(raw, [successor], now) if successor is not None else ([], [], Totals())
            )
            answer = answers[0] if answers else None
            if answer is not None and answer.status != 202:
                return (status, answer), Totals()
            new_id = successor.row.id if successor is not None and successor.row is not None else None
            move(raw, "abort", Step(status, Status.ABORTED), [((now.wall_ms, by, new_id), row["id"])])
            failpoint("requeue.before_commit")
            return (status, answer), change.plus(_gone(status, row["payload"]))

        return await self._write(work)

    async def found_at_broker(self, row_id: str, broker_message_id: str, history_id: int, now: Now) -> None:
        """Make a row done, because the broker has its message. A pending row passes through inflight."""

        def work(raw: sqlite3.Connection) -> tuple[None, Totals]:
            row = get_row(raw, row_id)
            if row is None:
                return None, Totals()
            origin = before = Status(row["status"])
            if move(raw, "take_due", TAKE, [((None,), row_id)]):
                origin = TAKE.target
            if not may_move(origin, Status.DONE):
                return None, Totals()
            values = (broker_message_id, history_id, now.wall_ms, now.lived_ms)
            move(raw, "settle_done", Step(origin, Status.DONE), [(values, row_id)])
            return None, _gone(before, row["payload"])

        await self._write(work)

    async def topics_waited_for(self) -> Sequence[str]:
        """Return the topics and queues whose key a row waits for."""
        return [
            row[0] for row in await self._db.run(lambda raw: raw.execute(_Q["topics_waited_for"]).fetchall())
        ]

    async def seal_waiting(
        self, topic: str, seal: Callable[[bytes], bytes], limit: int
    ) -> tuple[int, Sequence[Settlement]]:
        """Seal up to `limit` rows that wait for the key of a topic, in one commit.

        Return how many rows were looked at, and those that died. `seal` gets an envelope and returns the
        sealed one. Its `ProtocolError` key_not_here leaves all of them waiting, any other makes the row dead.
        """

        def work(raw: sqlite3.Connection) -> tuple[tuple[int, Sequence[Settlement]], Totals]:
            rows = raw.execute(_Q["waiting_of"], (topic, limit)).fetchall()
            sealed, dead, change = [], list[Settlement](), Totals()
            for rowid, *row in rows:
                taken = TakenRow(*row)
                try:
                    sealed.append((seal(taken.payload), rowid))
                    change = change.plus(Totals(queued_bytes=len(sealed[-1][0]) - len(taken.payload)))
                except ProtocolError as error:
                    if error.code == "key_not_here":
                        raise
                    dead.append(Settlement(taken, Status.DEAD, f"{error.code}: {error.message}"))
            raw.executemany(_Q["sealed"], sealed)
            failpoint("seal.before_commit")
            return (len(rows), dead), change.plus(_die(raw, dead))

        return await self._write(work)

    async def refuse_waiting(self, topic: str, reason: str) -> Sequence[Settlement]:
        """Make every row dead that waits for the key of a topic; return them."""

        def work(raw: sqlite3.Connection) -> tuple[Sequence[Settlement], Totals]:
            rows = [TakenRow(*row) for row in raw.execute(_Q["waiting_rows_of"], (topic,))]
            dead = [Settlement(row, Status.DEAD, reason) for row in rows]
            return dead, _die(raw, dead)

        return await self._write(work)

    async def _write(self, work: Callable[[sqlite3.Connection], tuple[R, Totals]]) -> R:
        """Run a transaction and add its change to the totals."""
        try:
            result, change = await self._db.transaction(work)
        except asyncio.CancelledError:
            self._uncounted = True
            raise
        self._totals = self._totals.plus(change)
        return result

    async def _count(self) -> None:
        """Count the totals from the rows. It reads every waiting row: at the start, and after a write of
        unknown outcome."""
        self._totals = Totals(*await self._db.run(lambda raw: raw.execute(_Q["totals"]).fetchone()))
        self._uncounted = False


def _die(raw: sqlite3.Connection, dead: Sequence[Settlement]) -> Totals:
    """Make pending rows dead, and return the change of the totals."""
    move(raw, "refuse", REFUSE, [((ended.error,), ended.row.id) for ended in dead])
    size = sum(len(ended.row.payload) for ended in dead)
    return Totals(pending=-len(dead), dead=len(dead), queued_bytes=-size)


def _gone(status: Status, payload: bytes) -> Totals:
    """Return the change of the totals when a row leaves them."""
    if status is Status.DEAD:
        return Totals(dead=-1)
    if status is Status.PENDING:
        return Totals(pending=-1, queued_bytes=-len(payload))
    return Totals(inflight=-1, queued_bytes=-len(payload))


def _age_reason(attempts: int, first_sent_broker_ms: int | None) -> str:
    if attempts or first_sent_broker_ms is not None:
        return "max_age_exceeded: it was sent before, so the broker may have accepted it"
    return "max_age_exceeded: it was never sent"
