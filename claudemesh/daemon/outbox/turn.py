"""One turn of the drain as a transaction: it writes results, looks up and inserts sends, and takes ready
rows.

Plain functions over the connection; `OutboxStore` runs them. Each returns the change of the totals.

Crash story: a row is on disk before its caller is answered, `inflight` on disk before its envelope leaves,
and its result is on disk before it is published. At the next start a row that is `inflight` becomes
`pending`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from claudemesh.daemon.outbox.rows import move
from claudemesh.daemon.outbox.states import (
    Answer,
    KnownRow,
    Status,
    Step,
    answer_done,
    answer_known,
    answer_queued,
)
from claudemesh.daemon.outbox.types import NewRow, Now, Settlement, Submission, TakenRow, Totals, Turn
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.queries import load_queries

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")
TAKE = Step(Status.PENDING, Status.INFLIGHT)
REFUSE = Step(Status.PENDING, Status.DEAD)
_DONE = Step(Status.INFLIGHT, Status.DONE)
_DEAD = Step(Status.INFLIGHT, Status.DEAD)
_RETRY = Step(Status.INFLIGHT, Status.PENDING)
# Largest number of rows that one turn makes ready when their wait is over. It keeps a turn short.
_PROMOTED = 512


def _no_space(folder: Path) -> Answer:
    text = f"The disk that holds {folder} is full: free some space and send again. Nothing of this was kept."
    return Answer(507, {"error": "insufficient_storage", "message": text})


def take_turn(
    raw: sqlite3.Connection,
    submissions: Sequence[Submission],
    settlements: Sequence[Settlement],
    now: Now,
    limit: int,
    inline_bytes: int | None,
) -> Turn:
    """Run all parts of one turn. Rows whose body has more than `inline_bytes` die instead of being taken."""
    change = settle(raw, settlements, now) if settlements else Totals()
    if limit > 0:
        raw.execute(_Q["promote"], (now.lived_ms, _PROMOTED))
    answers: Sequence[Answer] = ()
    taken: list[TakenRow] = []
    if submissions:
        # With no ready row ahead of it a send is taken as it is written: one write, not two.
        may_leave = limit > 0 and raw.execute(_Q["ready"], (1,)).fetchone() is None
        answers, taken, added = submit(raw, submissions, now, limit if may_leave else 0, inline_bytes)
        change = change.plus(added)
    if limit <= 0:
        return Turn(answers, (), change=change)
    refused: list[Settlement] = []
    while len(taken) < limit:
        wanted = limit - len(taken)
        rows = [TakenRow(*row) for row in raw.execute(_Q["ready"], (wanted,))]
        fitting = [row for row in rows if inline_bytes is None or not _is_over(row.payload, inline_bytes)]
        change = change.plus(_take(raw, fitting, now))
        taken += fitting
        if inline_bytes is not None and len(fitting) < len(rows):
            refused += _refuse(raw, [row for row in rows if row not in fitting], inline_bytes)
        if len(rows) < wanted:
            break
    change = change.plus(_refused(refused))
    waiting = raw.execute(_Q["next_due"]).fetchone() if len(taken) < limit else None
    return Turn(answers, taken, refused, waiting and waiting[0], change)


def submit(
    raw: sqlite3.Connection,
    submissions: Sequence[Submission],
    now: Now,
    room: int = 0,
    inline_bytes: int | None = None,
) -> tuple[list[Answer], list[TakenRow], Totals]:
    """Answer each send in order and insert the new ones, of which up to `room` leave at once.

    Return the answers, the rows that leave, and the change of the totals.
    """
    failpoint("submit.before_insert")
    known = find(raw, [submission.client_message_id for submission in submissions])
    answers: list[Answer] = []
    rows: list[Submission] = []
    local: list[tuple[Any, ...]] = []
    size = 0
    for submission in submissions:
        found = known.get(submission.client_message_id)
        if found is not None:
            answers.append(_answer_found(submission, *found))
        elif submission.row is None:
            assert submission.refusal is not None
            answers.append(submission.refusal)
        else:
            row = submission.row
            if row.local is not None:
                ids = (row.id, submission.client_message_id, submission.request_fingerprint)
                wish = (row.receipt, row.recipient)
                local.append((*ids, row.payload, row.now_ms, now.lived_ms, row.priority, *wish, row.local))
                done = _known(submission, row, Status.DONE)
                known[submission.client_message_id] = (done, row.payload)
                answers.append(answer_done(done, duplicate=False))
                continue
            rows.append(submission)
            size += len(row.payload)
            # A second submission of this id in the same batch must find the first one's row.
            pending = _known(submission, row, Status.PENDING)
            known[submission.client_message_id] = (pending, row.payload)
            answers.append(answer_queued(submission.client_message_id))
    taken = _insert(raw, rows, now, room, inline_bytes) if rows else []
    if local:
        raw.executemany(_Q["insert_local"], local)
    failpoint("submit.before_commit")
    change = Totals(pending=len(rows) - len(taken), inflight=len(taken), queued_bytes=size)
    return answers, taken, change


def _insert(
    raw: sqlite3.Connection, sends: Sequence[Submission], now: Now, room: int, inline_bytes: int | None
) -> list[TakenRow]:
    """Insert new rows: in flight the most urgent ones for which there is room, the others pending.

    Return those in flight. A row that waits for a key or is too large for the broker does not leave.
    """
    leaving: set[str] = set()
    taken: list[TakenRow] = []
    if room > 0:
        for send in sorted(sends, key=_urgency):
            row = send.row
            if row is None or row.waiting_topic is not None:
                continue
            if len(taken) < room and (inline_bytes is None or not _is_over(row.payload, inline_bytes)):
                taken.append(TakenRow(row.id, send.client_message_id, row.payload, 0))
                leaving.add(row.id)
    raw.executemany(
        _Q["insert"],
        (
            (
                *(row.id, send.client_message_id, send.request_fingerprint, row.payload, row.now_ms),
                *(now.lived_ms, row.priority, row.waiting_topic, row.receipt, row.recipient),
                *((TAKE.target.value, now.broker_ms) if row.id in leaving else (TAKE.origin.value, None)),
            )
            for send in sends
            if (row := send.row) is not None
        ),
    )
    return taken


def _urgency(send: Submission) -> int:
    assert send.row is not None
    return send.row.priority


def answer_without_space(
    raw: sqlite3.Connection, submissions: Sequence[Submission], folder: Path
) -> list[Answer]:
    """Answer known ids from their rows and new ones with 507, which names the folder."""
    refusal = _no_space(folder)
    known = find(raw, [submission.client_message_id for submission in submissions])
    answers = []
    for submission in submissions:
        found = known.get(submission.client_message_id)
        answers.append(refusal if found is None else _answer_found(submission, *found))
    return answers


def find(raw: sqlite3.Connection, ids: Sequence[str]) -> dict[str, tuple[KnownRow, bytes]]:
    """Return rows and payloads by client_message_id."""
    found = {}
    for row in raw.execute(_Q["find_many"], (orjson.dumps(ids).decode(),)):
        row_id, client_message_id, status, fingerprint, error, broker_message_id, history_id, payload = row
        known = KnownRow(
            row_id, client_message_id, Status(status), fingerprint, error, broker_message_id, history_id
        )
        found[client_message_id] = (known, payload)
    return found


def settle(raw: sqlite3.Connection, settlements: Sequence[Settlement], now: Now) -> Totals:
    """Write the outcomes of rows in flight."""
    by_status: dict[Status, list[Settlement]] = {Status.DONE: [], Status.DEAD: [], Status.PENDING: []}
    for settlement in settlements:
        by_status[settlement.status].append(settlement)
    done = [
        ((s.broker_message_id, s.history_id, now.wall_ms, now.lived_ms), s.row.id)
        for s in by_status[Status.DONE]
    ]
    dead = [((s.error,), s.row.id) for s in by_status[Status.DEAD]]
    waiting = [s for s in by_status[Status.PENDING] if s.waiting_topic is not None]
    retry = [((s.error, s.due_lived_ms), s.row.id) for s in by_status[Status.PENDING] if not s.waiting_topic]
    unsealed = [((s.error, s.waiting_topic), s.row.id) for s in waiting]
    counts = [
        move(raw, "settle_done", _DONE, done),
        move(raw, "settle_dead", _DEAD, dead),
        move(raw, "settle_retry", _RETRY, retry) + move(raw, "settle_unsealed", _RETRY, unsealed),
    ]
    failpoint("drain.before_settle_commit")
    over = sum(len(s.row.payload) for s in settlements if s.status is not Status.PENDING)
    return Totals(pending=counts[2], inflight=-sum(counts), dead=counts[1], queued_bytes=-over)


def _take(raw: sqlite3.Connection, rows: Sequence[TakenRow], now: Now) -> Totals:
    count = move(raw, "take_due", TAKE, [((now.broker_ms,), row.id) for row in rows])
    return Totals(pending=-count, inflight=count)


def _refuse(raw: sqlite3.Connection, rows: Sequence[TakenRow], inline_bytes: int) -> list[Settlement]:
    refused = [
        Settlement(row, Status.DEAD, _too_large(_body_bytes(row.payload), inline_bytes)) for row in rows
    ]
    move(raw, "refuse", REFUSE, [((settlement.error,), settlement.row.id) for settlement in refused])
    return refused


def _refused(refused: Sequence[Settlement]) -> Totals:
    size = sum(len(settlement.row.payload) for settlement in refused)
    return Totals(pending=-len(refused), dead=len(refused), queued_bytes=-size)


def _is_over(payload: bytes, inline_bytes: int) -> bool:
    # Base64 has four characters for three bytes, so a short payload needs no parsing.
    return len(payload) * 3 // 4 > inline_bytes and _body_bytes(payload) > inline_bytes


def _body_bytes(payload: bytes) -> int:
    text: str = orjson.loads(payload)["body"]
    return len(text) * 3 // 4 - text.count("=")


def _too_large(size: int, inline_bytes: int) -> str:
    return (
        f"payload_too_large: The sealed message has {size} bytes and the broker takes {inline_bytes} now. "
        "It was not sent: raise the broker's inline_bytes and requeue it, or send less."
    )


def _answer_found(submission: Submission, row: KnownRow, payload: bytes) -> Answer:
    match = row.request_fingerprint == submission.request_fingerprint or (
        submission.same_as is not None and submission.same_as(row, payload)
    )
    return answer_known(row, match=match)


def _known(submission: Submission, row: NewRow, status: Status) -> KnownRow:
    fingerprint = submission.request_fingerprint
    return KnownRow(row.id, submission.client_message_id, status, fingerprint, None, row.local, None)
