"""State machine of an outbox row, and the answers to a known id (docs/spec/daemon.md, Outbox)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from claudemesh.protocol.fingerprint import fingerprint_prefix


class Status(StrEnum):
    """The state of a row. A done row was accepted, a dead row waits for an operator, an aborted row was
    retired by one."""

    PENDING = "pending"
    INFLIGHT = "inflight"
    DONE = "done"
    DEAD = "dead"
    ABORTED = "aborted"


# For each status, the statuses that may follow, with the cause as the diagram in docs/architecture.md names
# it. Each statement that changes a status gets both from a `Step`. A `Step` exists only for these pairs.
TRANSITIONS: Mapping[Status, Mapping[Status, str]] = {
    Status.PENDING: {
        Status.INFLIGHT: "taken by a turn of the drain",
        Status.DEAD: "too old, or larger than the broker takes now",
        Status.ABORTED: "requeued or dropped",
    },
    Status.INFLIGHT: {
        Status.DONE: "accepted by the broker",
        Status.PENDING: "transient answer, lost link, no answer within 60 s, restart",
        Status.DEAD: "refused for good, or its frame closed the link twice",
    },
    Status.DEAD: {
        Status.ABORTED: "requeued or dropped",
        Status.DONE: "requeued, and the broker has it",
    },
    Status.DONE: {},
    Status.ABORTED: {},
}


class Step(Struct, frozen=True):
    """An allowed change of status. Raise `ValueError` for a pair that is not in the table."""

    origin: Status
    target: Status

    def __post_init__(self) -> None:
        if not may_move(self.origin, self.target):
            raise ValueError(f"A row that is {self.origin} never becomes {self.target}.")


def may_move(origin: Status, target: Status) -> bool:
    """Whether the table has a step from one status to another."""
    return target in TRANSITIONS[origin]


class Answer(Struct, frozen=True):
    """The API's answer to a send: an HTTP status and a JSON body."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)


class KnownRow(Struct, frozen=True):
    """The columns of a row that the look-up of its id needs."""

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
    """Return the answer to a send that has just been written."""
    return Answer(202, {"status": "queued", "client_message_id": client_message_id})


def answer_known(row: KnownRow, *, match: bool) -> Answer:
    """Return the answer to a send whose id has a row. `match`: whether the fingerprints are the same."""
    if not match:
        return _conflict(row, f"outbox_{row.status}_fingerprint_mismatch", "mismatch")
    if row.status in _WAITING:
        return Answer(202, {"status": _WAITING[row.status], "client_message_id": row.client_message_id})
    if row.status is Status.DONE:
        return answer_done(row, duplicate=True)
    return _conflict(row, f"outbox_{row.status}_fingerprint_match", row.status.value)


def answer_done(row: KnownRow, *, duplicate: bool) -> Answer:
    """Return the answer with the broker's ids of a done row."""
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


def answer_reused(row_id: str, client_message_id: str, fingerprint: bytes, message_id: str) -> Answer:
    """Return the answer to a local send whose id belongs to another message in the inbox."""
    row = KnownRow(row_id, client_message_id, Status.DONE, fingerprint, None, message_id, None)
    return answer_known(row, match=False)


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
