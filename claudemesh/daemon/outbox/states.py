"""Outbox tables: legal transitions, and answers for known ids (docs/spec/daemon.md, POST /v1/send)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from claudemesh.protocol.fingerprint import fingerprint_prefix


class Status(StrEnum):
    """Where a row is. Done succeeded, dead awaits an operator, aborted was retired by one."""

    PENDING = "pending"
    INFLIGHT = "inflight"
    DONE = "done"
    DEAD = "dead"
    ABORTED = "aborted"


# Pending to dead: too old, or over the size that the broker takes now. In flight to pending: a transient
# answer, a lost link, or no answer by the deadline. In flight to dead: refused for good, or alone in flight
# when the broker closed the link for its frame a second time. Dead to done: a requeue asked the broker first,
# and it had the message.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.INFLIGHT, Status.DEAD, Status.ABORTED}),
    Status.INFLIGHT: frozenset({Status.DONE, Status.DEAD, Status.PENDING}),
    Status.DEAD: frozenset({Status.ABORTED, Status.DONE}),
    Status.DONE: frozenset(),
    Status.ABORTED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API says: an HTTP status and a JSON body."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownRow:
    """What the look-up needs of a row that exists."""

    id: str
    client_message_id: str
    status: Status
    request_fingerprint: bytes
    last_error: str | None
    broker_message_id: str | None
    history_id: int | None


_WAITING = {Status.PENDING: "queued", Status.INFLIGHT: "inflight"}

_CONFLICT_TEXT = {
    "dead": "This send was given up; see `claudemesh daemon outbox inspect`, then requeue or drop it.",
    "aborted": "This id was retired by an operator; send again with a new client_message_id.",
    "mismatch": "This client_message_id belongs to another send; use a new id for a new message.",
}


def answer_queued(client_message_id: str) -> Answer:
    """The answer to a send that has just been written."""
    return Answer(202, {"status": "queued", "client_message_id": client_message_id})


def answer_known(row: KnownRow, *, match: bool) -> Answer:
    """Answer a send whose id has a row already; `match` says whether it is the same send."""
    if not match:
        return _conflict(row, f"outbox_{row.status}_fingerprint_mismatch", "mismatch")
    if row.status in _WAITING:
        return Answer(202, {"status": _WAITING[row.status], "client_message_id": row.client_message_id})
    if row.status is Status.DONE:
        return answer_done(row, duplicate=True)
    return _conflict(row, f"outbox_{row.status}_fingerprint_match", row.status.value)


def answer_done(row: KnownRow, *, duplicate: bool) -> Answer:
    """Answer with the broker's ids."""
    return Answer(
        200,
        {
            "status": "done",
            "duplicate": duplicate,
            "client_message_id": row.client_message_id,
            "broker_message_id": row.broker_message_id,
            "history_id": row.history_id,
        },
    )


def _conflict(row: KnownRow, conflict: str, text: str) -> Answer:
    body: dict[str, Any] = {
        "error": "idempotency_key_reused",
        "message": _CONFLICT_TEXT[text],
        "conflict": conflict,
        "client_message_id": row.client_message_id,
        "daemon_fingerprint_prefix": fingerprint_prefix(row.request_fingerprint),
    }
    if row.status is Status.DONE:
        body["broker_message_id"] = row.broker_message_id
    if text == "dead":
        body["reason"] = row.last_error
    return Answer(409, body)
