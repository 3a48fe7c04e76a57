from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import (
    CLOSE_KINDS,
    CloseCode,
    InvalidField,
    ProtocolError,
    close_reason,
    parse_close_reason,
)


def test_body_holds_error_message_and_the_fields_of_the_case() -> None:
    """One shape everywhere."""
    error = ProtocolError("destination_not_found", "Nobody has that name.", near=["bob"])
    assert error.as_body() == {
        "error": "destination_not_found",
        "message": "Nobody has that name.",
        "near": ["bob"],
    }
    assert str(error) == "destination_not_found: Nobody has that name."


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_envelope", 400),
        ("anything_unlisted", 400),
        ("not_a_member", 403),
        ("destination_not_found", 404),
        ("idempotency_key_reused", 409),
        ("key_not_bound", 409),
        ("payload_too_large", 413),
        ("fingerprint_drift", 422),
        ("cannot_reseal", 422),
        ("rate_limited", 429),
        ("broker_unavailable", 503),
        ("insufficient_storage", 507),
    ],
)
def test_code_decides_the_status(code: str, status: int) -> None:
    """The statuses of send_result and of HTTP are the same table."""
    assert ProtocolError(code, "").status == status


def test_invalid_field_names_its_field() -> None:
    """400 with a field name."""
    error = InvalidField("invalid_envelope", "seal.nonce", "seal.nonce must be 24 bytes.")
    assert error.field == "seal.nonce"
    assert error.as_body()["field"] == "seal.nonce"


def test_every_close_code_has_its_kind() -> None:
    """docs/spec/protocol.md, Close codes."""
    assert {int(code): kind for code, kind in CLOSE_KINDS.items()} == {
        4000: "protocol_error",
        4001: "unauthenticated",
        4002: "revoked",
        4003: "replaced_by_newer_connection",
        4004: "member_already_connected",
        4005: "slow_consumer",
        4006: "broker_draining",
        4010: "feature_unavailable",
        4011: "feature_param_invalid",
        4012: "feature_param_below_floor",
    }


@given(st.sampled_from(CloseCode), st.text(st.characters(), max_size=300), st.text(max_size=300))
def test_close_reason_always_fits(code: CloseCode, feature: str, detail: str) -> None:
    """JSON, at most 123 bytes, the kind always there."""
    text = close_reason(code, feature=feature, detail=detail)
    assert len(text.encode()) <= 123
    assert json.loads(text)["kind"] == CLOSE_KINDS[code]


def test_close_reason_cuts_the_detail_before_the_feature() -> None:
    """The name of the feature is kept when the detail is long."""
    text = close_reason(CloseCode.FEATURE_PARAM_BELOW_FLOOR, feature="key_epoch", detail="x" * 200)
    told = parse_close_reason(text)
    assert told["feature"] == "key_epoch"
    assert 0 < len(told["detail"]) < 200


def test_close_reason_reads_back() -> None:
    """A short reason loses nothing."""
    text = close_reason(CloseCode.FEATURE_UNAVAILABLE, feature="key_epoch", detail="not offered")
    assert parse_close_reason(text) == {
        "kind": "feature_unavailable",
        "feature": "key_epoch",
        "detail": "not offered",
    }


@pytest.mark.parametrize("text", ["", "bye", "[]", "17", '{"kind": 4}', "[" * 5000, '{"kind": {}}'])
def test_close_reason_of_another_kind_is_empty(text: str) -> None:
    """A close reason is untrusted input."""
    assert parse_close_reason(text) == {}
