from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fingerprint import fingerprint_prefix, fingerprint_preimage, request_fingerprint

SEND: dict[str, Any] = {
    "kind": "topic",
    "ref": "alerts",
    "reply_to_id": None,
    "priority": "next",
    "meta": {"b": 1, "a": "x"},
    "body": b"hello",
}


def test_preimage_is_the_fields_joined_by_zero_bytes() -> None:
    """version 00 kind 00 ref 00 reply_to 00 priority 00 meta 00 body_hash."""
    parts = [
        b"1",
        b"topic",
        b"alerts",
        b"",
        b"next",
        b'{"a":"x","b":1}',
        sha256(b"hello").hexdigest().encode(),
    ]
    assert fingerprint_preimage(**SEND) == b"\0".join(parts)
    assert request_fingerprint(**SEND) == sha256(b"\0".join(parts)).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "queue"},
        {"ref": "alert"},
        {"reply_to_id": "01HQXW5Z3Y8C6T0V9R4N2M7K1P"},
        {"priority": "now"},
        {"meta": {"b": 1, "a": "y"}},
        {"meta": None},
        {"body": b"hellp"},
        {"version": 2},
    ],
)
def test_any_other_send_has_another_fingerprint(change: dict[str, Any]) -> None:
    """Equal if and only if it is the same send."""
    assert request_fingerprint(**{**SEND, **change}) != request_fingerprint(**SEND)


def test_order_of_meta_does_not_matter() -> None:
    """meta is canonical."""
    assert request_fingerprint(**{**SEND, "meta": {"a": "x", "b": 1}}) == request_fingerprint(**SEND)


@pytest.mark.parametrize("field", ["kind", "ref", "reply_to_id", "priority"])
@pytest.mark.parametrize("value", ["a\0b", "\0", "\ud800"])
def test_a_boundary_cannot_be_forged(field: str, value: str) -> None:
    """No field but the body may hold a zero byte."""
    with pytest.raises(ProtocolError, match="invalid_field"):
        fingerprint_preimage(**{**SEND, field: value})


def test_meta_with_a_zero_byte_is_escaped() -> None:
    """JCS writes it as six characters, so it is no boundary."""
    assert fingerprint_preimage(**{**SEND, "meta": {"k": "\0"}}).count(0) == 6


def test_prefix_is_eight_bytes() -> None:
    """16 hex characters for people and 409 answers."""
    assert fingerprint_prefix(bytes(range(32))) == "0001020304050607"
