"""Sealing: turns a resolved request into a frozen envelope (docs/spec/protocol.md, Envelope)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destination
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.types import NewRow
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.envelope import MAC_BYTES, Envelope, Seal, build_envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fingerprint import request_fingerprint
from claudemesh.protocol.sealing import (
    Receipting,
    SealedContent,
    SealedContext,
    SessionNames,
    decode_content,
    encode_content,
    open_box,
    seal_box,
)
from claudemesh.protocol.topic_keys import TopicKey, open_secret, seal_secret

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


class TopicKeyLookup(Protocol):
    """The keys of topics that the sealer uses."""

    def current(self, topic: str) -> TopicKey | None:
        """Return the key to seal with, None while there is none."""
        ...

    def find(self, topic: str, key_epoch: int) -> TopicKey | None:
        """Return the key of an epoch, if it is held."""
        ...

    def present(self, topic: str) -> TopicKey | None:
        """Return the key that waiting rows are sealed with, None while there is none."""
        ...

    def begin(self, topic: str) -> None:
        """Note that a row which has to wait is on its way to the disk, and ask for the key."""
        ...

    def written(self, topic: str) -> None:
        """Note that such a row is on the disk, or will not be."""
        ...


class Sealer:
    """Seals and signs with this host's current keys.

    Without a key of its topic a post is encoded and signed, and not sealed: its row waits for the key.
    """

    def __init__(
        self,
        keyring: Keyring,
        mesh_id: str,
        entropy: Callable[[int], bytes],
        body_limit: BodyLimit,
        topic_keys: TopicKeyLookup,
    ) -> None:
        self._keyring = keyring
        self._mesh_id = mesh_id
        self._entropy = entropy
        self._body_limit = body_limit
        self._topic_keys = topic_keys

    def seal(
        self, request: SendRequest, to: Destination, mentions: tuple[str, ...], client_message_id: str
    ) -> Envelope:
        """Seal the message to its recipient and return the frozen envelope. Every retry sends the same
        bytes.

        `mentions` are ed25519 keys. Raise `ProtocolError` invalid_key for an unusable key of the recipient,
        payload_too_large for a body over the broker's limit.
        """
        sessions = SessionNames(
            request.from_session, request.target.session, request.hops, request.traceparent
        )
        receipting = Receipting(request.receipt, request.receipts)
        content = (request.message, request.meta_json, request.attachments, sessions, receipting)
        body, seal = self._sealed(content, to, client_message_id, self._topic_key(to))
        limit = self._body_limit.last
        # A body that is sealed later grows by then.
        size = len(body) + (MAC_BYTES if seal.alg == "none" else 0)
        if size > limit:
            text = f"The sealed message has {size} bytes; the broker takes {limit}."
            raise ProtocolError("payload_too_large", text, limit=limit)
        return self._begun(
            build_envelope(
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
        )

    def reissue(self, envelope: Envelope, to: Destination, client_message_id: str) -> Envelope:
        """Seal and sign the same message again under a new id. The id is part of the sealed content.

        Raise `ProtocolError` cannot_open when the keys that it was sealed with are not known any more.
        """
        return self._begun(self._reissued(envelope, to, client_message_id, self._topic_key(to)))

    def _reissued(
        self, envelope: Envelope, to: Destination, client_message_id: str, key: TopicKey | None
    ) -> Envelope:
        content = self.open_own(envelope, to)
        meta_json = orjson.dumps(content.meta) if content.meta else b""
        parts = (content.message, meta_json, content.attachments, content.sessions, content.receipting)
        body, seal = self._sealed(parts, to, client_message_id, key)
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

    def seal_again(self, payload: bytes) -> bytes:
        """Seal the envelope of a post or a job with the present key of its topic, under the same id.

        The broker has accepted nothing under the id. Raise `ProtocolError` key_not_here without a key.
        """
        envelope = Envelope.decode(payload)
        topic = envelope.destination_ref
        key = self._topic_keys.present(topic)
        if key is None:
            raise ProtocolError("key_not_here", f"The key of {topic} is not here yet.")
        to = Destination(envelope.destination_kind, topic)
        return self._reissued(envelope, to, envelope.client_message_id, key).encode()

    def open_own(self, envelope: Envelope, to: Destination) -> SealedContent:
        """Open a body that this host has sealed; both ends of a box share one key. Raise the error of
        `reissue`."""
        if envelope.seal.alg == "none":
            return decode_content(envelope.body)
        if envelope.seal.alg == "secretbox":
            assert envelope.seal.key_epoch is not None
            key = self._topic_keys.find(envelope.destination_ref, envelope.seal.key_epoch)
            if key is None:
                raise ProtocolError(
                    "cannot_open", "The topic key that this was sealed with is not held here."
                )
            return decode_content(open_secret(envelope.body, envelope.seal.nonce, key.key))
        assert to.peer is not None
        own = self._keyring.pubkey_of(envelope.seal.sender_key_id)
        sealing_key = to.peer.sealing_key_of(envelope.destination_ref)
        if own is None or not sealing_key:
            raise ProtocolError("cannot_open", "The keys that this was sealed with are not known any more.")
        shared = self._keyring.shared(sealing_key, own)
        return decode_content(open_box(envelope.body, envelope.seal.nonce, shared))

    def _begun(self, envelope: Envelope) -> Envelope:
        """Return an envelope; note one that has to wait for its key. `written` follows."""
        if envelope.seal.alg == "none":
            self._topic_keys.begin(envelope.destination_ref)
        return envelope

    def written(self, row: NewRow | None) -> None:
        """Note that a new row is on the disk, or will not be."""
        if row is not None and row.waiting_topic is not None:
            self._topic_keys.written(row.waiting_topic)

    def _topic_key(self, to: Destination) -> TopicKey | None:
        """Return the key of a topic or queue, None while rows have to wait for it."""
        return None if to.peer is not None else self._topic_keys.current(to.ref)

    def _sealed(
        self,
        parts: tuple[str, bytes, Sequence[Attachment], SessionNames, Receipting],
        to: Destination,
        client_message_id: str,
        key: TopicKey | None,
    ) -> tuple[bytes, Seal]:
        """Seal the parts of a content. `key` is that of a topic, if it is here."""
        message, meta_json, attachments, sessions, receipting = parts
        own = self._keyring.current
        context = SealedContext(self._mesh_id, own.ed25519_pubkey, to.ref, client_message_id, to.kind)
        content = encode_content(message, meta_json, context, attachments, sessions, receipting)
        if to.peer is None:
            if key is None:
                # The row waits for the key, and is sealed before it leaves.
                return content, Seal("none", b"", own.key_id, None, None)
            nonce = self._entropy(NONCE_BYTES)
            sealed = seal_secret(content, nonce, key.key)
            return sealed, Seal("secretbox", nonce, own.key_id, None, key.key_epoch)
        nonce = self._entropy(NONCE_BYTES)
        body = seal_box(content, nonce, self._keyring.shared(to.peer.x25519_pubkey))
        return body, Seal("box", nonce, own.key_id, to.peer.key_id, None)
