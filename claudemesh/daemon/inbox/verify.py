"""Verification and opening of deliveries (docs/spec/protocol.md, Verification).

A sealed body names the mesh, sender, recipient and id of its envelope. In any other envelope it is refused.
Version 0.1.0 sealed no such context. A body without it is opened, because a send that was accepted before
the upgrade cannot be sealed again. Its sender is still certain: an x25519 key belongs to one member.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple, Protocol

import orjson
from msgspec import Struct

from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.inbox.attached import announces_files, encode_attachments
from claudemesh.daemon.inbox.sealed import OpenedBody
from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.canonical import canonical_meta
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fields import Json
from claudemesh.protocol.frames import Deliver
from claudemesh.protocol.sealing import (
    NO_RECEIPTS,
    Receipting,
    SealedContext,
    SessionNames,
    decode_content,
    open_box,
    plain_content,
)
from claudemesh.protocol.signing import verify_envelope
from claudemesh.protocol.topic_keys import TopicKey, open_secret
from claudemesh.protocol.traceparent import with_traceparent
from claudemesh.runtime import aside
from claudemesh.runtime.logs import get_logger

log = get_logger("inbox")

# The body of a post or job was sealed with another key than that of its epoch.
_WRONG_KEY = "wrong_topic_key"


class Text(NamedTuple):
    """The content of an opened body; meta and attachments as JSON, None without. `NO_TEXT` is sealed."""

    body: str | None = None
    meta: str | None = None
    attachments: str | None = None
    from_session: str | None = None
    to_session: str | None = None
    receipting: Receipting = NO_RECEIPTS
    hops: int = 0


NO_TEXT = Text()


class Recipient(NamedTuple):
    """The other member that a dm of this member went to: its key, and the member if this host knows it."""

    pubkey: str
    peer: Peer | None


class Invalid(Struct, frozen=True):
    """A delivery that is dropped, counted and never shown."""

    reason: str


def refusal_of(sender: Peer | None, accepted_at: int) -> str | None:
    """Return the reason to drop a message because of its sender, None without one."""
    if sender is None:
        return "unknown_sender"
    if sender.revocation is not None and accepted_at > sender.revocation.at_ms:
        # Messages from before stay. A broker that takes others from a revoked key is not followed.
        return "revoked_sender"
    return None


class HooksOf(Protocol):
    """Function that returns the names of the hooks that a message starts."""

    def __call__(
        self, kind: str, topic: str | None, *, mentioned: bool, has_files: bool
    ) -> tuple[str, ...]: ...


class TopicKeyFinder(Protocol):
    """The keys of topics that open posts and jobs."""

    def find(self, topic: str, key_epoch: int) -> TopicKey | None:
        """Return the key of an epoch, if it is held."""
        ...

    def want(self, topic: str, key_epoch: int) -> None:
        """Get the key of an epoch when a member has wrapped it for this one."""
        ...


class OpeningNotes(Struct, frozen=True):
    """Callbacks for bodies of older versions and keys.

    `on_without_context` is called for each body that was sealed without a context, `on_older_key` for each
    that was sealed to a rotated-out key of this member, with whether that key is still in the archive.
    """

    on_without_context: Callable[[], None] = lambda: None
    on_older_key: Callable[[bool], None] = lambda is_opened: None


class Verifier:
    """Verifies deliveries for one member and opens what was sealed to it."""

    def __init__(
        self,
        keyring: Keyring,
        mesh_id: str,
        slug: str,
        new_id: Callable[[], str],
        limit: int,
        hooks: HooksOf,
        topic_keys: TopicKeyFinder,
        notes: OpeningNotes | None = None,
    ) -> None:
        self._keyring = keyring
        self._mesh_id = mesh_id
        self._slug = slug
        self._new_id = new_id
        self._limit = limit
        self._hooks = hooks
        self._older: set[str] = set()
        self._topic_keys = topic_keys
        self._notes = notes or OpeningNotes()

    async def open(
        self, delivery: Deliver, sender: Peer, now_ms: int, recipient: Recipient | None = None
    ) -> InboxRow | Invalid:
        """Return the row of a genuine message, or the reason to drop the delivery.

        `recipient` is the other member of a dm that this member has sent, in the broker's history. The row is
        sealed when this host does not know that member.
        """
        try:
            envelope = _parsed(delivery.envelope)
        except ProtocolError as error:
            return Invalid(error.code)
        signer = self._signer(envelope, sender)
        reason = self._forged(envelope, signer, recipient)
        if reason is not None:
            return Invalid(reason)
        sealed, unreadable = None, None
        try:
            text = await self._content(envelope, sender, signer, recipient)
        except ProtocolError as error:
            if error.code not in ("cannot_open", _WRONG_KEY):
                return Invalid(error.code)
            # The signature is valid, so the message is genuine: keep it until its key is on this host, or set
            # it aside.
            came = delivery.envelope
            text, sealed = NO_TEXT, came.encode() if isinstance(came, Envelope) else orjson.dumps(came)
            unreadable = _WRONG_KEY if error.code == _WRONG_KEY else None
        is_receipt = bool(text.receipting.receipts)
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
            body=text.body,
            meta=text.meta,
            priority=envelope.priority,
            received_at=now_ms,
            reply_to_id=envelope.reply_to_id,
            mentioned=self._mentions_us(envelope),
            attachments=text.attachments,
            from_session=text.from_session,
            to_session=text.to_session,
            hops=text.hops,
            receipting=text.receipting,
            sealed=sealed,
            unreadable=unreadable,
            # No hooks yet: they need the text, so they run after the message has been opened.
            hooks=() if sealed is not None or is_receipt else self._hooks_of(envelope, text.attachments),
        )

    def is_own_key(self, pubkey: str) -> bool:
        """Whether an ed25519 key is this member's, now or before a rotation."""
        return self._keyring.is_own(pubkey)

    async def reopen(self, raw: bytes, sender: Peer) -> OpenedBody | Invalid | None:
        """Open the envelope of a message that was stored sealed. None: its key is still missing."""
        try:
            envelope = Envelope.parse(orjson.loads(raw))
            text = await self._content(envelope, sender, self._signer(envelope, sender))
        except ProtocolError as error:
            return None if error.code == "cannot_open" else Invalid(error.code)
        assert text.body is not None
        hooks = self._hooks_of(envelope, text.attachments)
        return OpenedBody(
            text.body,
            text.meta,
            hooks,
            text.attachments,
            text.from_session,
            text.to_session,
            text.receipting,
            text.hops,
        )

    def _hooks_of(self, envelope: Envelope, files: str | None) -> tuple[str, ...]:
        kind, topic = envelope.destination_kind, _topic(envelope)
        mentioned, has_files = self._mentions_us(envelope), announces_files(files)
        return self._hooks(kind, topic, mentioned=mentioned, has_files=has_files)

    def _mentions_us(self, envelope: Envelope) -> bool:
        return bool(envelope.mentions) and any(map(self._keyring.is_own, envelope.mentions))

    def _forged(self, envelope: Envelope, signer: str | None, recipient: Recipient | None) -> str | None:
        if len(envelope.body) > self._limit:
            return "payload_too_large"
        if envelope.destination_kind == "dm" and not self._is_ours(envelope, recipient):
            return "not_for_this_member"
        if not hmac.compare_digest(envelope.expected_fingerprint(), envelope.request_fingerprint):
            return "fingerprint_drift"
        if signer is None:
            return "bad_signature"
        if (envelope.seal.alg == "box") != (envelope.destination_kind == "dm"):
            return "wrong_seal"
        return None

    def _is_ours(self, envelope: Envelope, recipient: Recipient | None) -> bool:
        if recipient is None:
            return self._keyring.is_own(envelope.destination_ref)
        return envelope.destination_ref == recipient.pubkey

    async def _content(
        self, envelope: Envelope, sender: Peer, signer: str | None, recipient: Recipient | None = None
    ) -> Text:
        """Return the content of a body. `ProtocolError` cannot_open: its key is not here."""
        if envelope.seal.alg == "box":
            content = self._unboxed(envelope, sender, signer, recipient)
        elif envelope.seal.alg == "none":
            # A broker of an earlier version has accepted it.
            log.info("message_without_seal", sender=sender.name, topic=envelope.destination_ref)
            content = envelope.body
        else:
            content = self._unlocked(envelope)
        if signer is not None:
            # Most bodies are plain. For any other the whole content is read.
            ref, client_message_id = envelope.destination_ref, envelope.client_message_id
            expected = SealedContext(self._mesh_id, signer, ref, client_message_id, envelope.destination_kind)
            plain = plain_content(content, expected)
            if plain is not None:
                return _of_kind(_plain_text(*plain), envelope)
        context, text = await aside.run(aside.weight_of(content), _read, content)
        self._compare(context, envelope, sender)
        if text.receipting.receipts and envelope.destination_kind != "dm":
            raise ProtocolError("wrong_receipts", "Receipts go to the sender of a message, and to no topic.")
        return _of_kind(text, envelope)

    def _signer(self, envelope: Envelope, sender: Peer) -> str | None:
        """Return the key of the sender that signed the envelope: its present one, or one of its chain.

        The key id only decides which key is tried first.
        """
        part, present = envelope.signed_part(), sender.pubkey
        is_present = envelope.seal.sender_key_id == sender.key_id
        if is_present and verify_envelope(present, self._mesh_id, part, envelope.signature):
            return present
        others = sender.earlier_keys[::-1]
        for key in others if is_present else (*others, present):
            if verify_envelope(key, self._mesh_id, part, envelope.signature):
                return key
        return None

    def _unboxed(
        self, envelope: Envelope, sender: Peer, signer: str | None, recipient: Recipient | None
    ) -> bytes:
        """Open a body with the pairs of keys that belong to its signature and to its recipient.

        The key ids of the seal are not used: no key that is current elsewhere vouches for them.
        """
        if recipient is not None:
            # A box opens with either pair: the sender's private key is as good as the recipient's.
            theirs = recipient.peer and recipient.peer.sealing_key_of(envelope.destination_ref)
            if not theirs:
                raise ProtocolError("cannot_open", "The sealing key of the recipient is not known.")
            return open_box(envelope.body, envelope.seal.nonce, self._keyring.shared(theirs, signer))
        own = envelope.destination_ref
        sealing_key = sender.sealing_key_of(signer)
        if not sealing_key:
            raise ProtocolError("cannot_open", "The sealing key of the sender's older key is not known.")
        try:
            content = open_box(envelope.body, envelope.seal.nonce, self._keyring.shared(sealing_key, own))
        except ProtocolError:
            if own != self._keyring.pubkey and self._keyring.archive.find(own) is None:
                self._notes.on_older_key(False)
            raise
        if own != self._keyring.pubkey:
            self._notes.on_older_key(True)
        return content

    def _unlocked(self, envelope: Envelope) -> bytes:
        """Open a post or job with the key of its epoch. `ProtocolError` cannot_open while it is not held."""
        topic, key_epoch = envelope.destination_ref, envelope.seal.key_epoch
        assert key_epoch is not None
        key = self._topic_keys.find(topic, key_epoch)
        if key is None:
            self._topic_keys.want(topic, key_epoch)
            raise ProtocolError("cannot_open", "The key of the topic is not here yet.")
        try:
            return open_secret(envelope.body, envelope.seal.nonce, key.key)
        except ProtocolError as error:
            # The key is right, so no later one opens it.
            raise ProtocolError(_WRONG_KEY, "The body was sealed with another key.") from error

    def _compare(self, context: SealedContext | None, envelope: Envelope, sender: Peer) -> None:
        """Raise `ProtocolError` wrong_context for a body that was sealed for another envelope."""
        if context is None:
            if sender.member_id not in self._older:
                self._older.add(sender.member_id)
                log.info("body_without_context", sender=sender.name)
            self._notes.on_without_context()
            return
        expected = SealedContext(
            self._mesh_id,
            context.sender,
            envelope.destination_ref,
            envelope.client_message_id,
            None if context.kind is None else envelope.destination_kind,
        )
        if context != expected or context.sender not in (sender.pubkey, *sender.earlier_keys):
            raise ProtocolError("wrong_context", "What was sealed belongs to another envelope.")


def _parsed(envelope: Json | Envelope) -> Envelope:
    return envelope if isinstance(envelope, Envelope) else Envelope.parse(envelope)


def _read(content: bytes) -> tuple[SealedContext | None, Text]:
    opened = decode_content(content)
    meta = canonical_meta(with_traceparent(opened.meta, opened.sessions.traceparent)).decode() or None
    files, sessions = encode_attachments(opened.attachments), opened.sessions
    names = (sessions.sender, sessions.recipient)
    found = Text(opened.message, meta, files, *names, opened.receipting, sessions.hops)
    return opened.context, found


def _plain_text(message: str, sessions: SessionNames, receipting: Receipting) -> Text:
    names = (sessions.sender, sessions.recipient)
    return Text(message, None, None, *names, receipting, sessions.hops)


def _of_kind(text: Text, envelope: Envelope) -> Text:
    """Return a text without the session that it is for, unless it is a dm: a topic has none."""
    return text if envelope.destination_kind == "dm" else text._replace(to_session=None)


def _topic(envelope: Envelope) -> str | None:
    return None if envelope.destination_kind == "dm" else envelope.destination_ref
