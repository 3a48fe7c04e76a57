"""outbox.db: every write path is one transaction on the connection's own thread.

Crash story: a row exists before its caller hears of it; a row is `inflight` on disk before its
envelope leaves; a result is on disk before anybody is told. What died in between is `pending` again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from claudemesh.daemon.outbox.done import DoneSends
from claudemesh.daemon.outbox.rows import dicts, get_row, page_statement, public
from claudemesh.daemon.outbox.states import Answer, KnownRow, Status, answer_known, answer_queued
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database, OnFailure

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")
_CHAIN_LIMIT = 100


@dataclass(frozen=True, slots=True)
class NewRow:
    """A send that may be inserted: its frozen envelope, and where it stands in the queue."""

    id: str
    payload: bytes
    priority: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A send at the door: its id, its fingerprint, and what to do when the id is new.

    `row` is inserted when the id is unknown; without one, `refusal` is the answer. `same_as` judges
    a known row whose fingerprint differs: by its envelope, was it the same send under another key?
    """

    client_message_id: str
    request_fingerprint: bytes
    row: NewRow | None
    refusal: Answer | None = None
    same_as: Callable[[KnownRow, bytes], bool] | None = None
    unknown_member: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is `inflight` on disk and may leave now."""

    id: str
    client_message_id: str
    payload: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a row in flight."""

    row: Claimed
    status: Literal[Status.DONE, Status.DEAD, Status.PENDING]
    error: str | None = None
    next_attempt_at: int = 0
    broker_message_id: str | None = None
    history_id: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What one transaction brought. `next_due` is when the next waiting row may go out, if any waits;
    `queued_bytes` by how much the payloads that wait have grown.
    """

    answers: Sequence[Answer]
    claimed: Sequence[Claimed]
    next_due: int | None
    queued_bytes: int = 0


class OutboxStore:
    """The outbox on disk."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.done = DoneSends(database)
        # Payloads that are pending or in flight, kept in step by every write.
        self.queued_bytes = 0

    @classmethod
    async def open(cls, path: Path, on_failure: OnFailure | None = None) -> OutboxStore:
        """Open or create outbox.db. Raises `StorageCorrupt` when it is damaged: never replaced silently."""
        migrations = load_migrations("claudemesh.daemon.sql.outbox")
        return cls(await Database.open(path, migrations, on_failure))

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()

    @property
    def database(self) -> Database:
        """The file, for its upkeep."""
        return self._db

    @property
    def schema_version(self) -> int:
        """The file's own version."""
        return self._db.schema_version

    async def turn(
        self, submissions: Sequence[Submission], settlements: Sequence[Settlement], now_ms: int, limit: int
    ) -> Turn:
        """Write results, look up and insert sends, and claim up to `limit` rows that are due: one commit.

        Sends are answered in order. `StorageFull` and the like mean that none of it happened.
        """
        turn = await self._db.transaction(lambda raw: _turn(raw, submissions, settlements, now_ms, limit))
        self.queued_bytes += turn.queued_bytes
        if submissions:
            failpoint("d3")
        return turn

    async def answer_without_space(self, submissions: Sequence[Submission]) -> Sequence[Answer]:
        """Answer known ids as always and new ones with 507: the disk is full, reading still works."""
        refusal = _no_space(self._db.path.parent)
        return await self._db.run(lambda raw: _answer_without_space(raw, submissions, refusal))

    async def recover(self, now_ms: int, longest_wait_ms: int) -> int:
        """At start: what was in flight becomes pending, and no row waits longer than the longest backoff."""

        def work(raw: sqlite3.Connection) -> int:
            count = raw.execute(_Q["recover_inflight"], (now_ms,)).rowcount
            latest = now_ms + longest_wait_ms
            raw.execute(_Q["clamp_attempts"], (latest, latest))
            return count

        count = await self._db.transaction(work)
        await self._count_queued()
        return count

    async def expire(self, before_ms: int, limit: int) -> Sequence[str]:
        """Give up pending rows accepted before a moment; each says whether it may have been accepted."""

        def work(raw: sqlite3.Connection) -> list[str]:
            rows = raw.execute(_Q["too_old"], (before_ms, limit)).fetchall()
            raw.executemany(_Q["expire"], [(_age_reason(attempts), row_id) for row_id, attempts in rows])
            return [row_id for row_id, _ in rows]

        expired = await self._db.transaction(work)
        if expired:
            await self._count_queued()
        return expired

    async def drop_payloads(self, before_ms: int, limit: int) -> int:
        """Drop the payload of done rows older than a moment; id, fingerprint and broker ids stay."""
        return await self._db.transaction(
            lambda raw: raw.execute(_Q["drop_payloads"], (before_ms, limit)).rowcount
        )

    async def prune(self, limit: int) -> tuple[int, int]:
        """Drop payloads of done and aborted rows, however young; returns how many rows, and their bytes.

        Their ids and fingerprints stay: a retry is answered as before.
        """

        def work(raw: sqlite3.Connection) -> tuple[int, int]:
            rows = raw.execute(_Q["prunable"], (limit, limit)).fetchall()
            raw.executemany(_Q["prune"], [(rowid,) for rowid, _ in rows])
            return len(rows), sum(size for _, size in rows)

        return await self._db.transaction(work)

    async def find(self, client_message_id: str) -> tuple[KnownRow, bytes] | None:
        """Return a row and its payload by its client_message_id."""
        found = await self._db.run(lambda raw: _find(raw, [client_message_id]))
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
        """Return rows that follow a cursor in this order, and the cursor of the next page or None."""
        statement = page_statement(status, newest_first=newest_first, first=after is None)
        values = {"after": after and int(after), "limit": limit + 1}
        rows = await self._db.run(lambda raw: dicts(raw.execute(statement, values)))
        more = str(rows[limit - 1]["cursor"]) if len(rows) > limit else None
        return [public(row) for row in rows[:limit]], more

    async def counts(self) -> dict[str, int]:
        """Return how many rows are pending, inflight and dead."""
        return await self._db.run(lambda raw: dict(raw.execute(_Q["counts"]).fetchall()))

    async def oldest_pending(self) -> int | None:
        """Return when the send that has waited longest was accepted, in Unix milliseconds."""
        return await self._db.run(lambda raw: raw.execute(_Q["oldest_pending"]).fetchone()[0])

    async def replace(
        self, key: str, successor: Submission | None, *, attempts: int, by: str, now_ms: int
    ) -> tuple[Status | None, Answer | None]:
        """Abort a dead or pending row, with a successor or without, in one transaction.

        Returns the row's status before it (None: no such row) and the successor's answer. A status that
        may not be aborted changes nothing, and so does a row that was sent since `attempts` was read.
        """

        def work(raw: sqlite3.Connection) -> tuple[Status | None, Answer | None]:
            row = get_row(raw, key)
            if row is None:
                return None, None
            status = Status(row["status"]) if row["attempts"] == attempts else Status.INFLIGHT
            if status not in (Status.DEAD, Status.PENDING):
                return status, None
            answer = _submit(raw, [successor])[0][0] if successor is not None else None
            if answer is not None and answer.status != 202:
                return status, answer
            new_id = successor.row.id if successor is not None and successor.row is not None else None
            raw.execute(_Q["abort"], (now_ms, by, new_id, row["id"]))
            failpoint("d8")
            return status, answer

        result = await self._db.transaction(work)
        await self._count_queued()
        return result

    async def found_at_broker(
        self, row_id: str, broker_message_id: str, history_id: int, now_ms: int
    ) -> None:
        """The broker has this message after all: dead or pending becomes done by the legal steps."""

        def work(raw: sqlite3.Connection) -> None:
            raw.execute(_Q["claim"], (row_id,))
            raw.execute(_Q["found_at_broker"], (broker_message_id, history_id, now_ms, row_id))

        await self._db.transaction(work)
        await self._count_queued()

    async def _count_queued(self) -> None:
        """Count anew, after what only operators and age do: it reads every row that waits."""
        self.queued_bytes = await self._db.run(lambda raw: raw.execute(_Q["queued_bytes"]).fetchone()[0])


def _submit(raw: sqlite3.Connection, submissions: Sequence[Submission]) -> tuple[list[Answer], int]:
    """Answer each send, insert the new ones; returns the bytes that were added too."""
    failpoint("d1")
    known = _find(raw, [submission.client_message_id for submission in submissions])
    answers: list[Answer] = []
    rows: list[tuple[Any, ...]] = []
    for submission in submissions:
        found = known.get(submission.client_message_id)
        if found is not None:
            answers.append(_answer_found(submission, *found))
        elif submission.row is None:
            assert submission.refusal is not None
            answers.append(submission.refusal)
        else:
            row = submission.row
            rows.append(
                (
                    row.id,
                    submission.client_message_id,
                    submission.request_fingerprint,
                    row.payload,
                    row.now_ms,
                    row.now_ms,
                    row.priority,
                )
            )
            # A second submission of this id in the same batch must find the first one's row.
            known[submission.client_message_id] = (_pending(submission, row.id), row.payload)
            answers.append(answer_queued(submission.client_message_id))
    if rows:
        raw.executemany(_Q["insert"], rows)
    failpoint("d2")
    return answers, sum(len(row[3]) for row in rows)


def _answer_found(submission: Submission, row: KnownRow, payload: bytes) -> Answer:
    match = row.request_fingerprint == submission.request_fingerprint or (
        submission.same_as is not None and submission.same_as(row, payload)
    )
    return answer_known(row, match=match)


def _answer_without_space(
    raw: sqlite3.Connection, submissions: Sequence[Submission], refusal: Answer
) -> list[Answer]:
    known = _find(raw, [submission.client_message_id for submission in submissions])
    answers = []
    for submission in submissions:
        found = known.get(submission.client_message_id)
        answers.append(refusal if found is None else _answer_found(submission, *found))
    return answers


def _no_space(folder: Path) -> Answer:
    text = f"The disk that holds {folder} is full: free some space and send again. Nothing of this was kept."
    return Answer(507, {"error": "insufficient_storage", "message": text})


def _pending(submission: Submission, row_id: str) -> KnownRow:
    return KnownRow(
        row_id, submission.client_message_id, Status.PENDING, submission.request_fingerprint, None, None, None
    )


def _find(raw: sqlite3.Connection, ids: Sequence[str]) -> dict[str, tuple[KnownRow, bytes]]:
    found = {}
    for row in raw.execute(_Q["find_many"], (orjson.dumps(ids).decode(),)):
        row_id, client_message_id, status, fingerprint, error, broker_message_id, history_id, payload = row
        known = KnownRow(
            row_id, client_message_id, Status(status), fingerprint, error, broker_message_id, history_id
        )
        found[client_message_id] = (known, payload)
    return found


def _turn(
    raw: sqlite3.Connection,
    submissions: Sequence[Submission],
    settlements: Sequence[Settlement],
    now_ms: int,
    limit: int,
) -> Turn:
    if settlements:
        _settle(raw, settlements, now_ms)
    answers, queued_bytes = _submit(raw, submissions) if submissions else ([], 0)
    queued_bytes -= sum(len(s.row.payload) for s in settlements if s.status is not Status.PENDING)
    claimed = _claim(raw, now_ms, limit) if limit > 0 else []
    # With room left everything that is due is claimed, and what waits for later is little.
    next_due = raw.execute(_Q["next_due"]).fetchone()[0] if len(claimed) < limit else None
    return Turn(answers, claimed, next_due, queued_bytes)


def _settle(raw: sqlite3.Connection, settlements: Sequence[Settlement], now_ms: int) -> None:
    done = [
        (s.broker_message_id, s.history_id, now_ms, s.row.id) for s in settlements if s.status is Status.DONE
    ]
    dead = [(s.error, s.row.id) for s in settlements if s.status is Status.DEAD]
    retry = [(s.error, s.next_attempt_at, s.row.id) for s in settlements if s.status is Status.PENDING]
    for name, rows in (("settle_done", done), ("settle_dead", dead), ("settle_retry", retry)):
        if rows:
            raw.executemany(_Q[name], rows)
    failpoint("d6")


def _claim(raw: sqlite3.Connection, now_ms: int, limit: int) -> list[Claimed]:
    claimed = [Claimed(*row) for row in raw.execute(_Q["due"], (now_ms, limit))]
    if claimed:
        raw.executemany(_Q["claim"], [(row.id,) for row in claimed])
    return claimed


def _age_reason(attempts: int) -> str:
    if attempts:
        return "max_age_exceeded: it was sent before, so the broker may have accepted it"
    return "max_age_exceeded: it was never sent"
