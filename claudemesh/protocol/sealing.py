"""Sealing to one member, and what is sealed (protocol.md, Envelope). X25519, XSalsa20-Poly1305."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from nacl.bindings import crypto_box_beforenm, crypto_box_easy_afternm, crypto_box_open_easy_afternm
from nacl.exceptions import CryptoError

from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_key


class BoxKeys:
    """Keys shared with peers, computed once each. At `limit` the peer first asked for makes room."""

    __slots__ = ("_limit", "_privkey", "_shared")

    def __init__(self, privkey: bytes, limit: int = 4096) -> None:
        self._privkey = privkey
        self._limit = limit
        self._shared: dict[str, bytes] = {}

    def shared(self, peer_x25519_pubkey: str) -> bytes:
        """Return the 32 bytes that both ends derive. `ProtocolError` invalid_key for an unusable key."""
        found = self._shared.get(peer_x25519_pubkey)
        if found is not None:
            return found
        point = bytes.fromhex(check_key(peer_x25519_pubkey, "x25519_pubkey"))
        try:
            made = crypto_box_beforenm(point, self._privkey)
        except CryptoError as error:
            raise ProtocolError(
                "invalid_key", "Nothing can be sealed to this x25519 key: its owner must make a new one."
            ) from error
        if len(self._shared) >= self._limit:
            del self._shared[next(iter(self._shared))]
        self._shared[peer_x25519_pubkey] = made
        return made


def seal_box(plaintext: bytes, nonce: bytes, shared: bytes) -> bytes:
    """Return the sealed bytes, 16 more than the plain ones. A nonce (24 bytes) is used once only."""
    return crypto_box_easy_afternm(plaintext, nonce, shared)


def open_box(sealed: bytes, nonce: bytes, shared: bytes) -> bytes:
    """Return the plain bytes. `ProtocolError` cannot_open when key, nonce or a single bit differs."""
    try:
        return crypto_box_open_easy_afternm(sealed, nonce, shared)
    except CryptoError as error:
        raise ProtocolError("cannot_open", "It was not sealed to this key, or was changed since.") from error


def encode_content(message: str, meta: Mapping[str, Any] | None) -> bytes:
    """Return the JSON that is sealed. `ProtocolError` invalid_content for what JSON cannot hold."""
    try:
        return orjson.dumps({"message": message, "meta": dict(meta) if meta else None})
    except orjson.JSONEncodeError as error:
        raise ProtocolError("invalid_content", "The message or its meta has no JSON form.") from error


def decode_content(raw: bytes) -> tuple[str, dict[str, Any] | None]:
    """Return message and meta (None when empty). `ProtocolError` invalid_content, whatever the bytes are."""
    try:
        value = parse_json(raw)
    except ProtocolError as error:
        raise _invalid(error.message) from error
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        raise _invalid("it has no message.")
    meta = value.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise _invalid("its meta is no object.")
    return value["message"], meta or None


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_content", f"What was sealed cannot be read: {reason}")
