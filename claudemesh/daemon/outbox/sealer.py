"""Sealing: turns a resolved request into a frozen envelope (docs/spec/protocol.md, Envelope)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson

from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destination
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.envelope import Envelope, Seal, build_envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fingerprint import request_fingerprint
from claudemesh.protocol.sealing import (
    SealedContent,
    SealedContext,
    SessionNames,
    decode_content,
    encode_content,
    open_box,
    seal_box,
)

NONCE_BYTES = 24


def fingerprint(request: SendRequest, kind: str, ref: str) -> bytes:
    """Return the SHA-256 fingerprint of a caller's plaintext request. It never leaves this host.

    The session that the message is for follows the reference: another session is another request.
    """
    session = request.target.session
    return request_fingerprint(
        kind=kind,
        ref=ref if session is None else f"{ref}/{session}",
        reply_to_id=request.reply_to_id,
        priority=request.priority,
        meta=request.canonical_meta,
        body=request.message.encode(),
    )


class Sealer:
    """Seals and signs with this host's current keys."""

    def __init__(
        self,
        keyring: Keyring,
        mesh_id: str,
        entropy: Callable[[int], bytes],
        body_limit: BodyLimit,
    ) -> None:
        self._keyring = keyring
        self._mesh_id = mesh_id
        self._entropy = entropy
        self._body_limit = body_limit

    def seal(
        self, request: SendRequest, to: Destination, mentions: tuple[str, ...], client_message_id: str
    ) -> Envelope:
        """Seal the message to its recipient and return the frozen envelope. Every retry sends the same
        bytes.

        `mentions` are ed25519 keys. Raise `ProtocolError` invalid_key for an unusable key of the recipient,
        payload_too_large for a body over the broker's limit.
        """
        sessions = SessionNames(request.from_session, request.target.session)
        content = (request.message, request.meta_json, request.attachments, sessions)
        body, seal = self._sealed(content, to, client_message_id)
        limit = self._body_limit.last
        if len(body) > limit:
            text = f"The sealed message has {len(body)} bytes; the broker takes {limit}."
            raise ProtocolError("payload_too_large", text, limit=limit)
        return build_envelope(
            identity=self._keyring.current,
            mesh_id=self._mesh_id,
            client_message_id=client_message_id,
            destination_kind=to.kind,
            destination_ref=to.ref,
            reply_to_id=request.reply_to_id,
            priority=request.priority,
            mentions=mentions,
            body=body,
            seal=seal,
        )

    def reissue(self, envelope: Envelope, to: Destination, client_message_id: str) -> Envelope:
        """Seal and sign the same message again under a new id. The id is part of the sealed content.

        Raise `ProtocolError` cannot_open when the keys that it was sealed with are not known any more.
        """
        content = self.open_own(envelope, to)
        meta_json = orjson.dumps(content.meta) if content.meta else b""
        parts = (content.message, meta_json, content.attachments, content.sessions)
        body, seal = self._sealed(parts, to, client_message_id)
        return build_envelope(
            identity=self._keyring.current,
            mesh_id=self._mesh_id,
            client_message_id=client_message_id,
            destination_kind=to.kind,
            destination_ref=to.ref,
            reply_to_id=envelope.reply_to_id,
            priority=envelope.priority,
            mentions=envelope.mentions,
            body=body,
            seal=seal,
        )

    def open_own(self, envelope: Envelope, to: Destination) -> SealedContent:
        """Open a body that this host has sealed; both ends of a box share one key. Raise the error of
        `reissue`."""
        if envelope.seal.alg == "none":
            return decode_content(envelope.body)
        assert to.peer is not None
        own = self._keyring.pubkey_of(envelope.seal.sender_key_id)
        sealing_key = to.peer.sealing_key_of(envelope.destination_ref)
        if own is None or not sealing_key:
            raise ProtocolError("cannot_open", "The keys that this was sealed with are not known any more.")
        shared = self._keyring.shared(sealing_key, own)
        return decode_content(open_box(envelope.body, envelope.seal.nonce, shared))

    def _sealed(
        self,
        parts: tuple[str, bytes, Sequence[Attachment], SessionNames],
        to: Destination,
        client_message_id: str,
    ) -> tuple[bytes, Seal]:
        """Seal text, meta, attachments and names of sessions."""
        message, meta_json, attachments, sessions = parts
        own = self._keyring.current
        context = SealedContext(self._mesh_id, own.ed25519_pubkey, to.ref, client_message_id, to.kind)
        content = encode_content(message, meta_json, context, attachments, sessions)
        if to.peer is None:
            # Topic keys are not built: the bodies of topics and queues are plaintext
            # (docs/spec/protocol.md, Envelope).
            return content, Seal("none", b"", own.key_id, None, None)
        nonce = self._entropy(NONCE_BYTES)
        body = seal_box(content, nonce, self._keyring.shared(to.peer.x25519_pubkey))
        return body, Seal("box", nonce, own.key_id, to.peer.key_id, None)
