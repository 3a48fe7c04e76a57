"""Errors: stable codes, their HTTP status, and close codes (docs/spec/protocol.md, Errors over HTTP)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

CLOSE_REASON_BYTES = 123

_DEFAULT_STATUS = 400
_STATUS: Mapping[str, int] = MappingProxyType(
    {
        "unauthenticated": 401,
        "ticket_expired": 401,
        "ticket_invalid": 401,
        "bad_signature": 403,
        "forbidden": 403,
        "not_a_member": 403,
        "not_authorized": 403,
        "refused_by_hook": 403,
        "origin_not_allowed": 403,
        "host_not_allowed": 403,
        "capability_ended": 403,
        "capability_required": 403,
        "capability_scope": 403,
        "invite_ephemeral_only": 403,
        "invite_for_another_name": 403,
        "blob_not_found": 404,
        "destination_not_found": 404,
        "directory_not_found": 404,
        "file_not_found": 404,
        "mesh_not_found": 404,
        "not_found": 404,
        "session_not_found": 404,
        "topic_not_found": 404,
        "method_not_allowed": 405,
        "idempotency_key_reused": 409,
        "key_changed": 409,
        "key_not_bound": 409,
        "key_rotated_out": 409,
        "key_taken": 409,
        "sealing_key_taken": 409,
        "name_rebound": 409,
        "name_taken": 409,
        "id_taken": 409,
        "slug_taken": 409,
        "last_owner": 409,
        "statement_outdated": 409,
        "queue_not_empty": 409,
        "key_epoch_conflict": 409,
        "upload_interrupted": 409,
        "invite_exhausted": 410,
        "invite_expired": 410,
        "invite_revoked": 410,
        "file_exists": 409,
        "file_id_ambiguous": 409,
        "source_changed": 409,
        "payload_too_large": 413,
        "blob_too_large": 413,
        "wrong_address": 421,
        "unsupported_media_type": 415,
        "range_not_satisfiable": 416,
        "fingerprint_drift": 422,
        "blob_changed": 422,
        "blob_hash_mismatch": 422,
        "cannot_reseal": 422,
        "file_wrong": 422,
        "seal_required": 422,
        "key_epoch_expired": 422,
        "wrong_wrap": 422,
        "daemon_busy": 429,
        "rate_limited": 429,
        "hook_loop": 429,
        "too_many_streams": 429,
        "too_many_topics": 429,
        "too_many_subscriptions": 429,
        "too_many_invites": 429,
        "too_many_uploads": 429,
        "too_many_blobs": 429,
        "too_many_guesses": 429,
        "too_many_epochs": 429,
        "too_many_rotations": 429,
        "too_many_sessions": 429,
        "internal_error": 500,
        "bad_reply": 503,
        "broker_busy": 503,
        "broker_draining": 503,
        "broker_unavailable": 503,
        "hook_failed": 503,
        "key_epoch_unknown": 503,
        "storage_full": 503,
        "storage_unavailable": 503,
        "insufficient_storage": 507,
        "mesh_quota_exceeded": 507,
        "quota_exceeded": 507,
        "spool_full": 507,
    }
)


class ProtocolError(Exception):
    """A refusal: a stable code, a message in sentences for people, and the fields of the case."""

    def __init__(self, code: str, message: str, **fields: object) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.fields: dict[str, object] = fields

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def status(self) -> int:
        """The HTTP status of the code, which a `send_result` carries too."""
        return _STATUS.get(self.code, _DEFAULT_STATUS)

    def as_body(self) -> dict[str, object]:
        """Return the JSON object of the error: error, message, and the fields of the case."""
        return {"error": self.code, "message": self.message, **self.fields}


class InvalidField(ProtocolError):
    """A refusal because of one field of the input. `field` is its path, such as `seal.nonce`."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(code, message, field=field)
        self.field = field


class CloseCode(IntEnum):
    """Close codes of the WebSocket (docs/spec/protocol.md, Close codes)."""

    PROTOCOL_ERROR = 4000
    UNAUTHENTICATED = 4001
    REVOKED = 4002
    REPLACED = 4003
    ALREADY_CONNECTED = 4004
    SLOW_CONSUMER = 4005
    DRAINING = 4006
    FEATURE_UNAVAILABLE = 4010
    FEATURE_PARAM_INVALID = 4011
    FEATURE_PARAM_BELOW_FLOOR = 4012


CLOSE_KINDS: dict[CloseCode, str] = {
    CloseCode.PROTOCOL_ERROR: "protocol_error",
    CloseCode.UNAUTHENTICATED: "unauthenticated",
    CloseCode.REVOKED: "revoked",
    CloseCode.REPLACED: "replaced_by_newer_connection",
    CloseCode.ALREADY_CONNECTED: "member_already_connected",
    CloseCode.SLOW_CONSUMER: "slow_consumer",
    CloseCode.DRAINING: "broker_draining",
    CloseCode.FEATURE_UNAVAILABLE: "feature_unavailable",
    CloseCode.FEATURE_PARAM_INVALID: "feature_param_invalid",
    CloseCode.FEATURE_PARAM_BELOW_FLOOR: "feature_param_below_floor",
}


# A kind of 4001: no member of the mesh has this key. A restore of the broker's database may be the reason.
NOT_A_MEMBER = "not_a_member"
LEFT = "left"
# A kind of 4001: the key was a member's until it rotated its keys.
KEY_ROTATED_OUT = "key_rotated_out"
# A kind of 4001: the hello is for another address than the broker's own, which `detail` lists.
WRONG_ADDRESS = "wrong_address"


def close_reason(code: CloseCode, *, kind: str | None = None, feature: str = "", detail: str = "") -> str:
    """Return a close reason: JSON in at most 123 bytes, for which `detail` and then `feature` are cut.

    `kind` defaults to the kind of the code.
    """
    shown = kind or CLOSE_KINDS[code]
    kept = {"feature": _printable(feature), "detail": _printable(detail)}
    while len(text := _reason_text(shown, kept)) and len(text.encode()) > CLOSE_REASON_BYTES:
        name = "detail" if kept["detail"] else "feature"
        kept[name] = kept[name][:-1]
    return text


def parse_close_reason(text: str) -> dict[str, str]:
    """Return those of kind, feature and detail that a close reason has; nothing for another text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    known = ("kind", "feature", "detail")
    return {name: value[name] for name in known if isinstance(value.get(name), str)}


def _reason_text(kind: str, kept: Mapping[str, str]) -> str:
    body = {"kind": kind, **{name: text for name, text in kept.items() if text}}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _printable(text: str) -> str:
    # The first cut bounds the loop above. Lone surrogates have no UTF-8 form.
    return text[:CLOSE_REASON_BYTES].encode("utf-8", "replace").decode()
