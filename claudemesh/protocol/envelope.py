"""Envelopes: parse, check and sign what daemons send and brokers store (docs/spec/protocol.md, Envelope)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeAlias, cast

import orjson

from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.fingerprint import FINGERPRINT_BYTES, request_fingerprint
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID, HEX_32, KEY_ID, SLUG, ULID
from claudemesh.protocol.keys import SIGNATURE_BYTES, Identity
from claudemesh.protocol.signing import sign_envelope
from claudemesh.protocol.wire import ENVELOPE_VERSION, PRIORITY_RANK, DestinationKind, Priority

SealAlg: TypeAlias = Literal["box", "secretbox", "none"]

MAX_MENTIONS: Final = 64
MAX_BODY_BYTES: Final = 64 << 20
MAX_KEY_EPOCH: Final = 2**31 - 1
NONCE_BYTES: Final = 24
MAC_BYTES: Final = 16

_CODE = "invalid_envelope"
_ID_FORM = "be 1 to 255 characters, each from ! to ~"
_FIELDS: Final = frozenset(
    (
        *("v", "client_message_id", "destination_kind", "destination_ref", "reply_to_id", "priority"),
        *("mentions", "body", "seal", "request_fingerprint", "signature"),
    )
)
# The fields of a seal by algorithm. Each is required, and no other is allowed.
_SEAL_FIELDS: Final[dict[SealAlg, frozenset[str]]] = {
    "box": frozenset(("alg", "nonce", "sender_key_id", "recipient_key_id")),
    "secretbox": frozenset(("alg", "nonce", "sender_key_id", "epoch")),
    "none": frozenset(("alg", "sender_key_id")),
}
# `none` is of version 0.1.0, and of rows that wait for the key of their topic on their own host.
_SEALS: Final[dict[DestinationKind, tuple[SealAlg, ...]]] = {
    "dm": ("box",),
    "topic": ("secretbox", "none"),
    "queue": ("secretbox", "none"),
}


class Seal(NamedTuple):
    """The seal of a body: algorithm, nonce and keys.

    The nonce is `b""` for none. `recipient_key_id` is set for box only, `key_epoch` for secretbox only.
    """

    alg: SealAlg
    nonce: bytes
    sender_key_id: str
    recipient_key_id: str | None = None
    key_epoch: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object, with the fields of this algorithm."""
        fields: dict[str, object] = {"alg": self.alg, "sender_key_id": self.sender_key_id}
        if self.nonce:
            fields["nonce"] = to_base64(self.nonce)
        if self.recipient_key_id is not None:
            fields["recipient_key_id"] = self.recipient_key_id
        if self.key_epoch is not None:
            fields["epoch"] = self.key_epoch
        return fields


class Envelope(NamedTuple):
    """A sealed and signed send. `parse`, `decode` and `build_envelope` make one and check every field."""

    client_message_id: str
    destination_kind: DestinationKind
    destination_ref: str
    reply_to_id: str | None
    priority: Priority
    mentions: tuple[str, ...]
    body: bytes
    seal: Seal
    request_fingerprint: bytes
    signature: bytes

    @classmethod
    def parse(cls, value: object) -> Envelope:
        """Return the envelope of a JSON value. `InvalidField` invalid_envelope: the first wrong field."""
        if not isinstance(value, dict):
            _bad("envelope", "be a JSON object")
        if value.keys() != _FIELDS:
            _refuse_fields(value, _FIELDS, "")
        if type(value["v"]) is not int or value["v"] != ENVELOPE_VERSION:
            _bad("v", f"be {ENVELOPE_VERSION}")
        raw_fingerprint = value["request_fingerprint"]
        if not isinstance(raw_fingerprint, str) or HEX_32.fullmatch(raw_fingerprint) is None:
            _bad("request_fingerprint", f"be {FINGERPRINT_BYTES} bytes in lower-case hexadecimal")
        envelope = cls(
            value["client_message_id"],
            value["destination_kind"],
            value["destination_ref"],
            value["reply_to_id"],
            value["priority"],
            _parse_mentions(value["mentions"]),
            _binary(value["body"], "body"),
            _parse_seal(value["seal"]),
            bytes.fromhex(raw_fingerprint),
            _binary(value["signature"], "signature", SIGNATURE_BYTES),
        )
        _check(envelope)
        return envelope

    @classmethod
    def decode(cls, raw: bytes) -> Envelope:
        """Return the envelope of a JSON text. `InvalidField` invalid_envelope, for any other bytes."""
        try:
            value = parse_json(raw)
        except ProtocolError as error:
            raise InvalidField(_CODE, "envelope", error.message) from error
        return cls.parse(value)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of the envelope."""
        return {
            "v": ENVELOPE_VERSION,
            "client_message_id": self.client_message_id,
            "destination_kind": self.destination_kind,
            "destination_ref": self.destination_ref,
            "reply_to_id": self.reply_to_id,
            "priority": self.priority,
            "mentions": list(self.mentions),
            "body": to_base64(self.body),
            "seal": self.seal.to_dict(),
            "request_fingerprint": self.request_fingerprint.hex(),
            "signature": to_base64(self.signature),
        }

    def encode(self) -> bytes:
        """Return the JSON text. Equal envelopes have equal bytes."""
        return orjson.dumps(self.to_dict())

    def expected_fingerprint(self) -> bytes:
        """Return the fingerprint of the fields, over the sealed body and without a meta."""
        return request_fingerprint(
            kind=self.destination_kind,
            ref=self.destination_ref,
            reply_to_id=self.reply_to_id,
            priority=self.priority,
            meta=None,
            body=self.body,
        )

    def signed_part(self) -> bytes:
        """Return the RFC 8785 form of all fields except body and signature, which the signature covers.

        It is formatted directly: every checked field is printable ASCII, and only client_message_id can hold
        characters that JSON escapes.
        """
        client_message_id = self.client_message_id
        if "\\" in client_message_id or '"' in client_message_id:
            client_message_id = client_message_id.replace("\\", "\\\\").replace('"', '\\"')
        mentions = '"' + '","'.join(self.mentions) + '"' if self.mentions else ""
        reply_to_id = "null" if self.reply_to_id is None else f'"{self.reply_to_id}"'
        return (
            f'{{"client_message_id":"{client_message_id}","destination_kind":"{self.destination_kind}",'
            f'"destination_ref":"{self.destination_ref}","mentions":[{mentions}],'
            f'"priority":"{self.priority}","reply_to_id":{reply_to_id},'
            f'"request_fingerprint":"{self.request_fingerprint.hex()}",'
            f'"seal":{{{_signed_seal(self.seal)}}},"v":{ENVELOPE_VERSION}}}'
        ).encode("ascii")


def build_envelope(
    *,
    identity: Identity,
    mesh_id: str,
    client_message_id: str,
    destination_kind: str,
    destination_ref: str,
    reply_to_id: str | None,
    priority: str,
    mentions: Iterable[str],
    body: bytes,
    seal: Seal,
) -> Envelope:
    """Return the envelope of a sealed body, with fingerprint and signature. `InvalidField`: see `parse`.

    A repeated mention is kept once.
    """
    unsigned = Envelope(
        client_message_id,
        cast("DestinationKind", destination_kind),
        destination_ref,
        reply_to_id,
        cast("Priority", priority),
        _parse_mentions(list(dict.fromkeys(mentions))),
        body,
        seal if _is_sound(seal) else _parse_seal(seal.to_dict()),
        b"",
        b"",
    )
    _check(unsigned)
    fields = unsigned[:-2]
    claimed = Envelope(*fields, unsigned.expected_fingerprint(), b"")
    signature = sign_envelope(identity, mesh_id, claimed.signed_part())
    return Envelope(*fields, claimed.request_fingerprint, signature)


def _check(envelope: Envelope) -> None:
    """Check the text fields, and the fields that depend on each other."""
    _match(CLIENT_MESSAGE_ID, envelope.client_message_id, "client_message_id", _ID_FORM)
    kind, seal = envelope.destination_kind, envelope.seal
    _one_of(kind, _SEALS, "destination_kind", "be dm, topic or queue")
    if kind == "dm":
        _match(HEX_32, envelope.destination_ref, "destination_ref", "be the recipient's key in hexadecimal")
    else:
        _match(SLUG, envelope.destination_ref, "destination_ref", "be a topic's or queue's name")
    if envelope.reply_to_id is not None:
        _match(ULID, envelope.reply_to_id, "reply_to_id", "be a broker_message_id or null")
    _one_of(envelope.priority, PRIORITY_RANK, "priority", "be now, next or low")
    if seal.alg not in _SEALS[kind]:
        _bad("seal.alg", f"be {' or '.join(_SEALS[kind])} for a {kind}")
    length = len(envelope.body)
    if length > MAX_BODY_BYTES:
        _bad("body", f"be at most {MAX_BODY_BYTES} bytes")
    if length < MAC_BYTES and seal.alg != "none":
        _bad("body", f"be at least {MAC_BYTES} bytes when it is sealed")


def _parse_mentions(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        _bad("mentions", "be a list")
    if not value:
        return ()
    if len(value) > MAX_MENTIONS:
        _bad("mentions", f"hold at most {MAX_MENTIONS} keys")
    for index, key in enumerate(value):
        _match(HEX_32, key, f"mentions[{index}]", "be a member's key, 64 hex characters")
    if len(set(value)) != len(value):
        _bad("mentions", "hold each key once")
    return tuple(value)


def _parse_seal(value: object) -> Seal:
    if not isinstance(value, dict):
        _bad("seal", "be a JSON object")
    alg = value.get("alg")
    fields = _SEAL_FIELDS.get(cast("SealAlg", alg)) if isinstance(alg, str) else None
    if fields is None:
        _bad("seal.alg", "be box, secretbox or none")
    if value.keys() != fields:
        _refuse_fields(value, fields, "seal.")
    sender_key_id, recipient_key_id, key_epoch = value["sender_key_id"], None, None
    _match(KEY_ID, sender_key_id, "seal.sender_key_id", "be k_ and a ULID")
    nonce = b"" if alg == "none" else _binary(value["nonce"], "seal.nonce", NONCE_BYTES)
    if alg == "box":
        recipient_key_id = value["recipient_key_id"]
        _match(KEY_ID, recipient_key_id, "seal.recipient_key_id", "be k_ and a ULID")
    elif alg == "secretbox":
        key_epoch = value["epoch"]
        if type(key_epoch) is not int or not 1 <= key_epoch <= MAX_KEY_EPOCH:
            _bad("seal.epoch", f"be a whole number from 1 to {MAX_KEY_EPOCH}")
    return Seal(cast("SealAlg", alg), nonce, sender_key_id, recipient_key_id, key_epoch)


def _is_sound(seal: Seal) -> bool:
    """Tell whether a seal that was made here passes every check of `_parse_seal`, without its JSON form."""
    alg, nonce, sender_key_id, recipient_key_id, key_epoch = seal
    if KEY_ID.fullmatch(sender_key_id) is None or len(nonce) != (0 if alg == "none" else NONCE_BYTES):
        return False
    if alg == "box":
        has_key = recipient_key_id is not None and KEY_ID.fullmatch(recipient_key_id) is not None
        return has_key and key_epoch is None
    if alg == "secretbox":
        has_epoch = type(key_epoch) is int and 1 <= key_epoch <= MAX_KEY_EPOCH
        return has_epoch and recipient_key_id is None
    return key_epoch is None and recipient_key_id is None


def _signed_seal(seal: Seal) -> str:
    key_epoch = "" if seal.key_epoch is None else f'"epoch":{seal.key_epoch},'
    nonce = f'"nonce":"{to_base64(seal.nonce)}",' if seal.nonce else ""
    recipient = "" if seal.recipient_key_id is None else f'"recipient_key_id":"{seal.recipient_key_id}",'
    return f'"alg":"{seal.alg}",{key_epoch}{nonce}{recipient}"sender_key_id":"{seal.sender_key_id}"'


def _binary(value: object, field: str, length: int | None = None) -> bytes:
    raw = from_base64(value)
    if raw is None:
        _bad(field, "be padded base64 in its canonical spelling")
    if length is not None and len(raw) != length:
        _bad(field, f"be {length} bytes in base64")
    return raw


def _match(pattern: Any, value: object, field: str, what: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        _bad(field, what)


def _one_of(value: object, known: Container[object], field: str, what: str) -> None:
    if not isinstance(value, str) or value not in known:
        _bad(field, what)


def _refuse_fields(value: dict[str, object], fields: frozenset[str], prefix: str) -> NoReturn:
    for name in sorted(fields - value.keys()):
        _bad(prefix + name, "be there")
    # The signature would not cover an unknown field. Its name is not shown, because it may be anything.
    where = prefix.rstrip(".") or "envelope"
    raise InvalidField(
        _CODE, where, f"{where} has a field that version {ENVELOPE_VERSION} does not know. Remove it."
    )


def _bad(field: str, what: str) -> NoReturn:
    raise InvalidField(_CODE, field, f"{field} must {what}.")
