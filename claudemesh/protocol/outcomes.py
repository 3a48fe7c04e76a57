"""Outcomes of a send by its result: done, dead or retry (docs/spec/protocol.md, send_result)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from claudemesh.protocol.fields import MAX_INTEGER
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.ids import is_ulid

# The permanent codes of the page. Every other code is retried, because a retry is idempotent.
PERMANENT_ERRORS: Final = frozenset(
    (
        "invalid_envelope",
        "not_a_member",
        "destination_not_found",
        "topic_not_found",
        "payload_too_large",
        "fingerprint_drift",
        "idempotency_key_reused",
    )
)
PERMANENT_STATUSES: Final = frozenset((400, 403, 404, 413, 422))
# Upper bound for the broker's `retry_after_ms`.
MAX_RETRY_AFTER_MS: Final = 3_600_000

RATE_LIMITED: Final = "rate_limited"
_SUCCESS: Final = frozenset((200, 201))
_CONFLICT: Final = 409
_MESSAGE_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Done:
    """The send was accepted, now or before (`duplicate`)."""

    broker_message_id: str
    history_id: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Dead:
    """The send will not be accepted as it is. An operator decides about it."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The outcome is unknown, or the send is refused for now.

    `retry_after_ms` is the wait that the broker asked for, None if it asked for none. `holds_all`: the limit
    counts the member or its mesh, so other sends would be refused too. `message` is the broker's, for people.
    """

    error: str
    retry_after_ms: int | None
    holds_all: bool = False
    message: str = field(default="", compare=False)


Outcome: TypeAlias = Done | Dead | Retry


def classify(result: SendResult) -> Outcome:
    """Return the outcome of a result. A result that is not clearly final is a retry."""
    fields = result.fields
    if result.status in _SUCCESS:
        return _done(result)
    error = _text(fields.get("error")) or f"status_{result.status}"
    if result.status == _CONFLICT:
        return Dead(error, _text(fields.get("message")) or "The id belongs to another send. Use a new one.")
    if result.status in PERMANENT_STATUSES and error in PERMANENT_ERRORS:
        return Dead(error, _text(fields.get("message")) or "The broker refused the send and gave no reason.")
    wait_ms, message = fields.get("retry_after_ms"), _text(fields.get("message"))
    if type(wait_ms) is not int or wait_ms < 0:
        return Retry(error, None, message=message)
    # A limit of one destination has that scope. Every other limit counts the member or its mesh.
    holds_all = error == RATE_LIMITED and fields.get("scope") != "destination"
    return Retry(error, min(wait_ms, MAX_RETRY_AFTER_MS), holds_all, message)


def _done(result: SendResult) -> Outcome:
    broker_message_id, history_id = result.fields.get("broker_message_id"), result.fields.get("history_id")
    if not isinstance(broker_message_id, str) or not is_ulid(broker_message_id):
        return Retry("malformed_result", None)
    if type(history_id) is not int or not 0 <= history_id <= MAX_INTEGER:
        return Retry("malformed_result", None)
    return Done(broker_message_id, history_id, result.fields.get("duplicate") is True)


def _text(value: object) -> str:
    return value[:_MESSAGE_CHARACTERS] if isinstance(value, str) else ""
