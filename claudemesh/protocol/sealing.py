"""Sealing to one member, and what is sealed (protocol.md, Envelope). X25519, XSalsa20-Poly1305."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

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


@dataclass(frozen=True, slots=True)
class Context:
    """The one envelope that a body belongs to: it stands in what is sealed, and is compared on opening.

    `sender` is the sender's ed25519 key. `ref` is the recipient's, or the name of a topic or queue. `kind` is
    dm, topic or queue; None when the sender did not say it.
    """

    mesh_id: str
    sender: str
    ref: str
    client_message_id: str
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What was sealed. Versions before the context sealed none: `context` is None."""

    message: str
    meta: dict[str, Any] | None
    context: Context | None


_CONTEXT: Final = ("mesh_id", "from", "to", "client_message_id")


def encode_content(message: str, meta_json: bytes, context: Context) -> bytes:
    """Return the JSON that is sealed; without a meta its text is empty. `ProtocolError` invalid_content."""
    content = {
        "mesh_id": context.mesh_id,
        "from": context.sender,
        "to": context.ref,
        "client_message_id": context.client_message_id,
        "kind": context.kind,
        "message": message,
        "meta": orjson.Fragment(meta_json) if meta_json else None,
    }
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError as error:
        raise ProtocolError("invalid_content", "The message has no JSON form.") from error


def decode_content(raw: bytes) -> Content:
    """Return what was sealed; empty meta is None. `ProtocolError` invalid_content, whatever the bytes are."""
    try:
        value = parse_json(raw)
    except ProtocolError as error:
        raise _invalid(error.message) from error
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        raise _invalid("it has no message.")
    meta = value.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise _invalid("its meta is no object.")
    return Content(value["message"], meta or None, _context(value))


def _context(value: Mapping[str, Any]) -> Context | None:
    """Return the context; None when nothing of one is there. A part of one is no context."""
    if not any(name in value for name in _CONTEXT):
        return None
    kind = value.get("kind")
    found = [part for name in _CONTEXT if isinstance(part := value.get(name), str)]
    if len(found) < len(_CONTEXT) or not isinstance(kind, str | None):
        raise _invalid("its context is not whole.")
    mesh_id, sender, ref, client_message_id = found
    return Context(mesh_id, sender, ref, client_message_id, kind)


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_content", f"What was sealed cannot be read: {reason}")
