"""Sealing to one member with X25519 and XSalsa20-Poly1305 (docs/spec/protocol.md, Sealed content)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from nacl.bindings import crypto_box_beforenm, crypto_box_easy_afternm, crypto_box_open_easy_afternm
from nacl.exceptions import CryptoError

from claudemesh.protocol.attachments import Attachment, parse_attachments
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_key, check_session
from claudemesh.protocol.receipts import Receipt, ReceiptState, parse_receipts, parse_wish
from claudemesh.protocol.traceparent import TRACEPARENT, valid_traceparent


class BoxKeys:
    """Cache of the keys that a private key shares with peers. At `limit` the oldest entry is dropped."""

    __slots__ = ("_limit", "_privkey", "_shared")

    def __init__(self, privkey: bytes, limit: int = 4096) -> None:
        self._privkey = privkey
        self._limit = limit
        self._shared: dict[str, bytes] = {}

    def shared(self, peer_x25519_pubkey: str) -> bytes:
        """Return the shared key, 32 bytes. `ProtocolError` invalid_key: the key of the peer is unusable."""
        found = self._shared.get(peer_x25519_pubkey)
        if found is not None:
            return found
        point = bytes.fromhex(check_key(peer_x25519_pubkey, "x25519_pubkey"))
        try:
            made = crypto_box_beforenm(point, self._privkey)
        except CryptoError as error:
            raise ProtocolError(
                "invalid_key",
                "The x25519 key is unusable, so nothing can be sealed to it. Its owner must create new keys.",
            ) from error
        if len(self._shared) >= self._limit:
            del self._shared[next(iter(self._shared))]
        self._shared[peer_x25519_pubkey] = made
        return made


def seal_box(plaintext: bytes, nonce: bytes, shared: bytes) -> bytes:
    """Return the sealed bytes, 16 more than the plaintext. A nonce (24 bytes) must be used only once."""
    return crypto_box_easy_afternm(plaintext, nonce, shared)


def open_box(sealed: bytes, nonce: bytes, shared: bytes) -> bytes:
    """Return the plaintext. `ProtocolError` cannot_open: the key, the nonce or the sealed bytes differ."""
    try:
        return crypto_box_open_easy_afternm(sealed, nonce, shared)
    except CryptoError as error:
        raise ProtocolError(
            "cannot_open", "The body was sealed to another key, or it was changed."
        ) from error


class SealedContext(NamedTuple):
    """The envelope that a body belongs to. It is sealed with the body and compared on opening.

    `sender` is the ed25519 key of the sender. `ref` is the key of the recipient, or the name of a topic or
    queue. `kind` is dm, topic or queue, None when the sender did not seal it.
    """

    mesh_id: str
    sender: str
    ref: str
    client_message_id: str
    kind: str | None = None


class SessionNames(NamedTuple):
    """The session that sends a message, and the one that it is for. None: no session is named.

    `hops` is the number of automatic answers that led to the message, `traceparent` its position in a trace.
    """

    sender: str | None = None
    recipient: str | None = None
    hops: int = 0
    traceparent: str | None = None


NO_SESSIONS: Final = SessionNames()
# Larger numbers of automatic answers are not told apart.
MAX_HOPS: Final = 255


class Receipting(NamedTuple):
    """The receipt that a message asks for, or the receipts that it consists of."""

    wish: ReceiptState | None = None
    receipts: tuple[Receipt, ...] = ()


NO_RECEIPTS: Final = Receipting()


class SealedContent(NamedTuple):
    """The content of a body. `context` is None for bodies of versions that sealed none."""

    message: str
    meta: dict[str, Any] | None
    context: SealedContext | None
    attachments: tuple[Attachment, ...] = ()
    sessions: SessionNames = NO_SESSIONS
    receipting: Receipting = NO_RECEIPTS


class PlainContent(NamedTuple):
    """The content of a body without meta and attachments, which consists of no receipts."""

    message: str
    sessions: SessionNames = NO_SESSIONS
    receipting: Receipting = NO_RECEIPTS


_CONTEXT: Final = ("mesh_id", "from", "to", "client_message_id")
# The beginning of the rest of a content, behind the message of a plain one.
_NO_META: Final = b',"meta":null'
_REST: Final = frozenset({"meta", "from_session", "to_session", "hops", "receipt"})
# Many messages have the same names of sessions and the same wish. Longer rests are not kept.
_KEPT_RESTS: Final = 256
_REST_BYTES: Final = 256


def encode_content(
    message: str,
    meta_json: bytes,
    context: SealedContext,
    attachments: Sequence[Attachment] = (),
    sessions: SessionNames = NO_SESSIONS,
    receipting: Receipting = NO_RECEIPTS,
) -> bytes:
    """Return the JSON text to seal; an empty `meta_json` means no meta. `ProtocolError` invalid_content."""
    content: dict[str, Any] = {
        "mesh_id": context.mesh_id,
        "from": context.sender,
        "to": context.ref,
        "client_message_id": context.client_message_id,
        "kind": context.kind,
        "message": message,
        "meta": orjson.Fragment(meta_json) if meta_json else None,
    }
    if attachments:
        content["attachments"] = [one.to_dict() for one in attachments]
    if sessions.sender is not None:
        content["from_session"] = sessions.sender
    if sessions.recipient is not None:
        content["to_session"] = sessions.recipient
    if sessions.hops:
        content["hops"] = min(sessions.hops, MAX_HOPS)
    if sessions.traceparent is not None:
        content["traceparent"] = sessions.traceparent
    if receipting.receipts:
        content["receipts"] = [one.to_dict() for one in receipting.receipts]
    elif receipting.wish is not None:
        content["receipt"] = receipting.wish.word
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError as error:
        raise ProtocolError(
            "invalid_content", "The message has no JSON form. Send text without lone surrogates."
        ) from error


def plain_content(raw: bytes, context: SealedContext) -> PlainContent | None:
    """Return a plain content that has this context, as `encode_content` writes it.

    None for any other bytes, also for those that `decode_content` refuses: the message is parsed, and a rest
    that was not seen before.
    """
    name = context.client_message_id
    if '"' in name or "\\" in name:
        return None
    head = (
        f'{{"mesh_id":"{context.mesh_id}","from":"{context.sender}","to":"{context.ref}",'
        f'"client_message_id":"{name}","kind":"{context.kind}","message":'
    ).encode()
    at = raw.rfind(_NO_META)
    if at < len(head) or len(raw) - at > _REST_BYTES or not raw.startswith(head):
        return None
    rest = _rest(raw[at:])
    if rest is None:
        return None
    try:
        message: object = orjson.loads(raw[len(head) : at])
    except orjson.JSONDecodeError:
        return None
    return PlainContent(message, *rest) if isinstance(message, str) else None


@lru_cache(maxsize=_KEPT_RESTS)
def _rest(raw: bytes) -> tuple[SessionNames, Receipting] | None:
    """Return the part of a plain content behind its message, None when it is not plain."""
    try:
        value = parse_json(b"{" + raw[1:])
        if not isinstance(value, dict) or not value.keys() <= _REST:
            return None
        return _sessions(value), _receipting(value)
    except ProtocolError:
        return None


def decode_content(raw: bytes) -> SealedContent:
    """Return the content of a body; empty meta is None. `ProtocolError` invalid_content for other bytes."""
    try:
        value = parse_json(raw)
    except ProtocolError as error:
        raise _invalid(error.message) from error
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        raise _invalid("It has no message.")
    meta = value.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise _invalid("Its meta is not an object.")
    attachments = parse_attachments(value.get("attachments"))
    sessions, receipting = _sessions(value), _receipting(value)
    return SealedContent(value["message"], meta or None, _context(value), attachments, sessions, receipting)


def _sessions(value: Mapping[str, Any]) -> SessionNames:
    """Return the names of sessions. A value that is no name of a session is refused."""
    sender, recipient = value.get("from_session"), value.get("to_session")
    try:
        sender = None if sender is None else check_session(sender)
        recipient = None if recipient is None else check_session(recipient)
    except ProtocolError as error:
        raise _invalid("The name of a session is not valid.") from error
    hops = value.get("hops")
    # A number without sense counts as the first message of a person does.
    known = hops if type(hops) is int and hops > 0 else 0
    return SessionNames(sender, recipient, min(known, MAX_HOPS), valid_traceparent(value.get(TRACEPARENT)))


def _receipting(value: Mapping[str, Any]) -> Receipting:
    """Return the part about receipts. Receipts never ask for a receipt."""
    receipts = parse_receipts(value.get("receipts"))
    return Receipting(None if receipts else parse_wish(value.get("receipt")), receipts)


def _context(value: Mapping[str, Any]) -> SealedContext | None:
    """Return the context, None when no field of it is there. A part of the fields is refused."""
    mesh_id, sender, ref = value.get("mesh_id"), value.get("from"), value.get("to")
    client_message_id, kind = value.get("client_message_id"), value.get("kind")
    if (
        isinstance(mesh_id, str)
        and isinstance(sender, str)
        and isinstance(ref, str)
        and isinstance(client_message_id, str)
        and (kind is None or isinstance(kind, str))
    ):
        return SealedContext(mesh_id, sender, ref, client_message_id, kind)
    if value.keys().isdisjoint(_CONTEXT):
        return None
    raise _invalid("Its context is not complete.")


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_content", f"The content of the body is not valid. {reason}")
