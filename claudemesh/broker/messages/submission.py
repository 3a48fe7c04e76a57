"""Submissions: sends on their way through the phases, each with the verdict on its envelope.

The verdict depends on the frame alone. The proof that the sender has signed it costs most, and is asked for
a batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from claudemesh.broker.limiter.base import Count
from claudemesh.broker.messages.sender import Sender, Signed
from claudemesh.broker.store.types import NewSend, SendKey
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.fingerprint import fingerprint_prefix
from claudemesh.protocol.frames import envelope_of
from claudemesh.protocol.frozen import parse_frozen
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID
from claudemesh.protocol.wire import PRIORITY_RANK

_FINGERPRINT_HEX = 64


class SendInProgress(NamedTuple):
    """A send on its way through the phases. `verdict` is a row to write, or an error.

    `signed` is what the sender has to have signed before the row is written; None of a refused one.
    """

    sender: Sender
    key: SendKey
    sender_fingerprint: bytes | None
    verdict: NewSend | ProtocolError
    # The request to the limiter. Its size is the length of the envelope; a refused one has none.
    charge: Count
    signed: Signed | None = None

    @property
    def size(self) -> int:
        """The length of the envelope in bytes; 0 when it is refused."""
        return self.charge.size

    def is_proven(self) -> bool:
        """Tell whether the sender has signed the envelope. A refused one needs no proof."""
        return self.signed is None or self.sender.has_signed(self.signed)

    def forged(self) -> SendInProgress:
        """Return this one, refused for its signature."""
        # Every recipient would drop it: an answer that it was accepted would not be true.
        error = InvalidField(
            "invalid_envelope",
            "signature",
            "The signature is not by a key of this member, because the envelope was sealed with other keys. "
            "Requeue it, so that it is signed again.",
        )
        return self._replace(verdict=error, charge=self.charge._replace(size=0), signed=None)


def prepare(
    sender: Sender,
    raw: Mapping[str, object] | bytes,
    *,
    inline_bytes: int,
    broker_message_id: str,
) -> SendInProgress | ProtocolError:
    """Validate an envelope, all but its signature. A bare error: it has no usable id to look up.

    Bytes are its JSON text. A send that was accepted before is answered from its row, one of version 0.1.0
    without a seal too.
    """
    envelope = parse_frozen(raw) if isinstance(raw, bytes) else None
    if isinstance(raw, bytes) and envelope is not None:
        client_message_id: object = envelope.client_message_id
        claimed: bytes | None = envelope.request_fingerprint
        text = raw
    else:
        try:
            value = envelope_of(raw) if isinstance(raw, bytes) else raw
        except ProtocolError as error:
            return error
        client_message_id = value.get("client_message_id")
        claimed = _sender_fingerprint(value.get("request_fingerprint"))
    if not isinstance(client_message_id, str) or CLIENT_MESSAGE_ID.fullmatch(client_message_id) is None:
        return InvalidField(
            "invalid_envelope",
            "client_message_id",
            "client_message_id must be 1 to 255 characters, each from ! to ~.",
        )
    key = SendKey(sender.mesh_id, sender.member_id, client_message_id)
    verdict: NewSend | ProtocolError
    signed = None
    try:
        if envelope is None:
            envelope = Envelope.parse(value)
            # As it came: it has exactly the known fields, each in its one spelling. One that does not parse
            # may hold a number that orjson does not write.
            text = orjson.dumps(value)
        if envelope.seal.alg == "none":
            raise ProtocolError(
                "seal_required",
                "The body is not sealed, and this broker takes sealed ones only. Upgrade claudemesh at the "
                "sender.",
            )
        verdict = _judge(envelope, key, text, inline_bytes, broker_message_id)
        size, signed = len(text), Signed(envelope.signed_part(), envelope.signature)
    except ProtocolError as error:
        verdict, size = error, 0
    count = Count(sender.mesh_id, sender.member_id, client_message_id, size, sender.allowance)
    return SendInProgress(sender, key, claimed, verdict, count, signed)


def _judge(
    envelope: Envelope, key: SendKey, text: bytes, inline_bytes: int, broker_message_id: str
) -> NewSend:
    if len(envelope.body) > inline_bytes:
        raise ProtocolError(
            "payload_too_large",
            f"The sealed body has {len(envelope.body)} bytes; this broker takes {inline_bytes}. Send less.",
        )
    computed = envelope.expected_fingerprint()
    if computed != envelope.request_fingerprint:
        raise ProtocolError(
            "fingerprint_drift",
            "The fingerprint of the envelope is not that of its content. Upgrade claudemesh at the sender.",
            broker_fingerprint_prefix=fingerprint_prefix(computed),
        )
    return NewSend(
        key=key,
        broker_message_id=broker_message_id,
        request_fingerprint=computed,
        destination_kind=envelope.destination_kind,
        destination_ref=envelope.destination_ref,
        priority=PRIORITY_RANK[envelope.priority],
        envelope=text,
        key_epoch=envelope.seal.key_epoch,
    )


def _sender_fingerprint(value: object) -> bytes | None:
    if not isinstance(value, str) or len(value) != _FINGERPRINT_HEX:
        return None
    try:
        return bytes.fromhex(value)
    except ValueError:
        return None
