"""Results of sends: the conversion of outcomes and errors into `send_result`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from claudemesh.broker.limiter.base import Decision
from claudemesh.broker.store.types import DedupeRow
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fingerprint import fingerprint_prefix
from claudemesh.protocol.frames import encode_send_result
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.errors import StorageError, StorageFull

_REFUSALS = {
    "not_a_member": "The sender is not an active member of this mesh. Ask an owner for a new invite.",
    "destination_not_found": "The mesh has no such recipient or topic. Check the key or the name.",
    "key_epoch_expired": (
        "The body is sealed under an epoch of the topic that is not accepted any more. Seal it again with "
        "the present key."
    ),
    "key_epoch_unknown": (
        "The broker has no such epoch of the topic; its database may have been restored. Register the epoch, "
        "then send the same again."
    ),
}


_OVER: Mapping[str | None, str] = {
    "mesh": "The mesh is over its limit of sends a minute (rate_limit_per_minute).",
    "member": "The member is over its limit of sends a minute (member_rate_limit_per_minute).",
    "bytes": "The member is over its limit of bytes a minute (member_bytes_per_minute).",
}


class SendAnswer(NamedTuple):
    """The outcome of a send (docs/spec/protocol.md, send_result)."""

    status: int
    fields: Mapping[str, object]

    def frame(self, request_id: int | str) -> str:
        """Return the `send_result` frame for a request."""
        return encode_send_result(request_id, self.status, self.fields)


def accepted(client_message_id: str, broker_message_id: str, history_id: int) -> SendAnswer:
    """Return the answer to a first insert."""
    return SendAnswer(
        201,
        {
            "broker_message_id": broker_message_id,
            "client_message_id": client_message_id,
            "history_id": history_id,
            "duplicate": False,
        },
    )


def existing(client_message_id: str, sender_fingerprint: bytes | None, row: DedupeRow) -> SendAnswer:
    """Return the answer for an id that is taken: the same send again (200), or another one (409)."""
    if sender_fingerprint != row.request_fingerprint:
        return SendAnswer(
            409,
            {
                "error": "idempotency_key_reused",
                "conflict": "request_fingerprint_mismatch",
                "broker_fingerprint_prefix": fingerprint_prefix(row.request_fingerprint),
                "message": "this client_message_id names another send: use a new one",
            },
        )
    return SendAnswer(
        200,
        {
            "broker_message_id": row.broker_message_id,
            "client_message_id": client_message_id,
            "history_id": row.history_id,
            "duplicate": True,
            "history_available": row.history_available,
            "first_seen_at": row.first_seen_at,
            "destination_kind": row.destination_kind,
            "destination_ref": row.destination_ref,
        },
    )


def rate_limited(decision: Decision) -> SendAnswer:
    """Return the answer to a send that the limiter did not let through; it is not counted."""
    over = _OVER.get(decision.bucket, _OVER["mesh"])
    return SendAnswer(
        429,
        {
            "error": "rate_limited",
            "message": f"{over} Send the same again in {decision.retry_after_ms} ms.",
            "retry_after_ms": decision.retry_after_ms,
        },
    )


_STORED: Mapping[str, str] = {
    "mesh": "The mesh has used up its quota of stored bytes (stored_bytes).",
    "member": "The member has used up its quota of stored bytes (member_stored_bytes).",
}


def quota_exceeded(over: str) -> SendAnswer:
    """Return the answer to a send for which there is no room; it waits until messages are swept."""
    message = (
        f"{_STORED[over]} The send is accepted when older messages are swept, or when an operator raises the "
        "quota with `claudemesh broker mesh set`."
    )
    return SendAnswer(
        507, {"error": "quota_exceeded", "message": message, "quota": over, "retry_after_ms": 60_000}
    )


def refused(error: str) -> SendAnswer:
    """Return the answer to a send that the check phase refused inside the transaction."""
    return of_error(ProtocolError(error, _REFUSALS.get(error, "The broker refused this send.")))


def of_error(error: BaseException) -> SendAnswer:
    """Return the answer for an exception; only `ProtocolError` is permanent."""
    if isinstance(error, ProtocolError):
        return SendAnswer(error.status, error.as_body())
    if isinstance(error, Overloaded):
        return _transient(503, "broker_busy", "The broker has too many requests. Send the same again.")
    if isinstance(error, StorageFull):
        return _transient(
            503, "storage_full", "The disk of the broker is full. Send the same again when it has space."
        )
    if isinstance(error, StorageError):
        text = "The database did not answer, so the outcome is unknown. Send the same again."
        return _transient(503, "storage_unavailable", text)
    return _transient(500, "internal_error", "The broker failed at this request. Send the same again.")


def _transient(status: int, error: str, message: str) -> SendAnswer:
    return SendAnswer(status, {"error": error, "message": message})
