"""A delivery is believed only after its sender's signature: verify, then open (protocol.md, Envelope)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from claudemesh.daemon.identity.directory import Peer
from claudemesh.daemon.inbox.sealed import OpenedBody
from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.protocol.canonical import canonical_meta
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import Deliver
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.sealing import BoxKeys, decode_content, open_box
from claudemesh.protocol.signing import verify_envelope
from claudemesh.runtime import aside


@dataclass(frozen=True, slots=True)
class Invalid:
    """A delivery that is dropped, counted and never shown."""

    reason: str


class HooksOf(Protocol):
    """Names the hooks that a message raises."""

    def __call__(self, kind: str, topic: str | None, *, mentioned: bool) -> tuple[str, ...]: ...


class Opener:
    """Verifies deliveries for one member and opens what was sealed to it."""

    def __init__(
        self,
        identity: Identity,
        mesh_id: str,
        slug: str,
        new_id: Callable[[], str],
        limit: int,
        hooks: HooksOf,
    ) -> None:
        self._identity = identity
        self._mesh_id = mesh_id
        self._slug = slug
        self._new_id = new_id
        self._limit = limit
        self._hooks = hooks
        self._boxes = BoxKeys(identity.x25519_privkey)

    async def open(self, delivery: Deliver, sender: Peer, now_ms: int) -> InboxRow | Invalid:
        """Return the row of a genuine message, or why it is none."""
        try:
            envelope = Envelope.parse(delivery.envelope)
        except ProtocolError as error:
            return Invalid(error.code)
        reason = self._forged(envelope, sender)
        if reason is not None:
            return Invalid(reason)
        sealed = None
        try:
            body, meta = await self._content(envelope, sender)
        except ProtocolError as error:
            if error.code != "cannot_open":
                return Invalid(error.code)
            # The signature holds, so it is genuine: keep it until the key is here.
            body, meta, sealed = None, None, orjson.dumps(delivery.envelope)
        return InboxRow(
            id=self._new_id(),
            client_message_id=envelope.client_message_id,
            sender_member_id=sender.member_id,
            broker_message_id=delivery.broker_message_id,
            history_id=delivery.history_id,
            mesh=self._slug,
            kind=envelope.destination_kind,
            topic=_topic(envelope),
            sender_pubkey=sender.pubkey,
            sender_name=sender.name,
            body=body,
            meta=meta,
            priority=envelope.priority,
            received_at=now_ms,
            reply_to_id=envelope.reply_to_id,
            sealed=sealed,
            # Hooks get the text: they run when the message has been opened.
            hooks=() if sealed is not None else self._hooks_of(envelope),
        )

    async def reopen(self, raw: bytes, sender: Peer) -> OpenedBody | Invalid | None:
        """Open the envelope of a message that was stored sealed; None when its key is still missing."""
        try:
            envelope = Envelope.parse(orjson.loads(raw))
            body, meta = await self._content(envelope, sender)
        except ProtocolError as error:
            return None if error.code == "cannot_open" else Invalid(error.code)
        return OpenedBody(body, meta, self._hooks_of(envelope))

    def _hooks_of(self, envelope: Envelope) -> tuple[str, ...]:
        mentioned = self._identity.ed25519_pubkey in envelope.mentions
        return self._hooks(envelope.destination_kind, _topic(envelope), mentioned=mentioned)

    def _forged(self, envelope: Envelope, sender: Peer) -> str | None:
        if len(envelope.body) > self._limit:
            return "payload_too_large"
        if envelope.destination_kind == "dm" and envelope.destination_ref != self._identity.ed25519_pubkey:
            return "not_for_this_member"
        if not hmac.compare_digest(envelope.expected_fingerprint(), envelope.request_fingerprint):
            return "fingerprint_drift"
        if not verify_envelope(sender.pubkey, self._mesh_id, envelope.signed_part(), envelope.signature):
            return "bad_signature"
        if (envelope.seal.alg == "box") != (envelope.destination_kind == "dm"):
            return "wrong_seal"
        return None

    async def _content(self, envelope: Envelope, sender: Peer) -> tuple[str, str | None]:
        if envelope.seal.alg == "box":
            if envelope.seal.recipient_key_id != self._identity.key_id:
                raise ProtocolError("cannot_open", "It is sealed to a key that is not here.")
            shared = self._boxes.shared(sender.x25519_pubkey)
            content = open_box(envelope.body, envelope.seal.nonce, shared)
        elif envelope.seal.alg == "none":
            content = envelope.body
        else:
            raise ProtocolError("cannot_open", "The topic's key is not here.")
        return await aside.run(aside.weight_of(content), _read, content)


def _read(content: bytes) -> tuple[str, str | None]:
    message, meta = decode_content(content)
    return message, canonical_meta(meta).decode() or None


def _topic(envelope: Envelope) -> str | None:
    return None if envelope.destination_kind == "dm" else envelope.destination_ref
