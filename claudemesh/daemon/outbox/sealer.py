"""Sealer: resolves, seals and signs a request into the frozen envelope (docs/spec/protocol.md, Envelope)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from claudemesh.daemon.identity.directory import Directory, Peer
from claudemesh.daemon.outbox.request import SendRequest, Target
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.envelope import Envelope, Seal, build_envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fingerprint import request_fingerprint
from claudemesh.protocol.sealing import (
    Content,
    Context,
    decode_content,
    encode_content,
    open_box,
    seal_box,
)

NONCE_BYTES = 24


@dataclass(frozen=True, slots=True)
class Resolved:
    """A destination as the fingerprint names it; `peer` is the member of a dm."""

    kind: str
    ref: str
    peer: Peer | None = None


class Sealer:
    """Resolves, fingerprints, seals and signs, with this host's keys and directory."""

    def __init__(
        self,
        keyring: Keyring,
        mesh_id: str,
        directory: Directory,
        entropy: Callable[[int], bytes],
        check_topic: Callable[[str, str], None] = lambda kind, name: None,
    ) -> None:
        self._keyring = keyring
        self._mesh_id = mesh_id
        self._directory = directory
        self._entropy = entropy
        self._check_topic = check_topic

    def resolve(self, target: Target) -> Resolved:
        """Find the destination of a target.

        `ProtocolError` destination_not_found or topic_not_found, with near matches, when there is none.
        """
        if target.kind != "dm":
            assert target.ref is not None
            self._check_topic(target.kind, target.ref)
            return Resolved(target.kind, target.ref)
        if target.name is not None:
            peer = self._directory.by_name(target.name)
        else:
            peer = self._directory.by_key(target.ref or "")
        if peer is None:
            raise self.not_found(target)
        return Resolved("dm", peer.pubkey, peer)

    def not_found(self, target: Target) -> ProtocolError:
        """Say that a member is not in the directory, or why it is not used, and who is meant perhaps."""
        if target.name is not None and (refusal := self._directory.refusals.of(target.name)):
            return refusal.error()
        near = self._directory.near(target.name) if target.name else []
        hint = f" Did you mean {', '.join(near)}?" if near else " `claudemesh peers` lists them."
        shown = target.name or target.ref
        return ProtocolError(
            "destination_not_found", f"No member {shown!r} is known in this mesh.{hint}", near=near
        )

    def fingerprint(self, request: SendRequest, kind: str, ref: str) -> bytes:
        """The fingerprint of a caller's plaintext request; it never leaves this host."""
        return request_fingerprint(
            kind=kind,
            ref=ref,
            reply_to_id=request.reply_to_id,
            priority=request.priority,
            meta=request.canonical_meta,
            body=request.message.encode(),
        )

    def seal(self, request: SendRequest, to: Resolved, client_message_id: str) -> Envelope:
        """Seal the message to its recipient and freeze the envelope: every retry is the same bytes."""
        body, seal = self._sealed(request.message, request.meta_json, to, client_message_id)
        return build_envelope(
            identity=self._keyring.current,
            mesh_id=self._mesh_id,
            client_message_id=client_message_id,
            destination_kind=to.kind,
            destination_ref=to.ref,
            reply_to_id=request.reply_to_id,
            priority=request.priority,
            mentions=tuple(self.resolve(target).ref for target in request.mentions),
            body=body,
            seal=seal,
        )

    def reissue(self, envelope: Envelope, client_message_id: str) -> Envelope:
        """The same message under a new id, which stands inside of what is sealed: sealed and signed anew.

        `ProtocolError` cannot_open when the recipient has other keys than those it was sealed to.
        """
        content = self.open_own(envelope)
        to = Resolved(envelope.destination_kind, envelope.destination_ref)
        if envelope.destination_kind == "dm":
            to = self.resolve(Target("dm", ref=envelope.destination_ref))
        meta_json = orjson.dumps(content.meta) if content.meta else b""
        body, seal = self._sealed(content.message, meta_json, to, client_message_id)
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

    def open_own(self, envelope: Envelope) -> Content:
        """Read what this host has sealed: both ends of a box share one key. `ProtocolError` as `reissue`."""
        if envelope.seal.alg == "none":
            return decode_content(envelope.body)
        to = self.resolve(Target("dm", ref=envelope.destination_ref))
        assert to.peer is not None
        shared = self._keyring.shared(to.peer.x25519_pubkey)
        return decode_content(open_box(envelope.body, envelope.seal.nonce, shared))

    def _sealed(
        self, message: str, meta_json: bytes, to: Resolved, client_message_id: str
    ) -> tuple[bytes, Seal]:
        own = self._keyring.current
        context = Context(self._mesh_id, own.ed25519_pubkey, to.ref, client_message_id, to.kind)
        content = encode_content(message, meta_json, context)
        if to.peer is None:
            # Until topic keys exist, topic bodies travel as they are (docs/spec/protocol.md, Envelope).
            return content, Seal("none", b"", own.key_id, None, None)
        nonce = self._entropy(NONCE_BYTES)
        body = seal_box(content, nonce, self._keyring.shared(to.peer.x25519_pubkey))
        return body, Seal("box", nonce, own.key_id, to.peer.key_id, None)
