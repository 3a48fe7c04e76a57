"""Signed statements and their domain strings (docs/spec/protocol.md, Signed statements).

A statement is its domain and its text fields, joined by zero bytes. No field may hold a zero byte, so no two
statements have the same bytes. Binary fields are signed in the form in which frames carry them (a nonce in
base64); only the last field may be raw bytes.
"""

from __future__ import annotations

from functools import lru_cache

from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.keys import Identity, raw_pubkey, verify_detached, verify_raw

_ENVELOPE = "claudemesh-envelope-v1"
_HELLO = "claudemesh-hello-v1"
_JOIN = "claudemesh-join-v1"
_REQUEST = "claudemesh-request-v1"
_ROTATION = "claudemesh-rotation-v1"
_TOPIC_EPOCH = "claudemesh-topic-epoch-v1"
_TOPIC_WRAP = "claudemesh-topic-wrap-v1"


def sign_envelope(identity: Identity, mesh_id: str, signed_part: bytes) -> bytes:
    """Sign the `signed_part` of an envelope for one mesh."""
    return identity.sign(_statement(_ENVELOPE, mesh_id, identity.ed25519_pubkey, tail=signed_part))


def verify_envelope(pubkey: str, mesh_id: str, signed_part: bytes, signature: bytes) -> bool:
    """Tell whether `pubkey` has signed this envelope for this mesh."""
    prepared = _of_sender(pubkey, mesh_id)
    if prepared is None:
        return False
    head, raw = prepared
    return verify_raw(head + signed_part, signature, raw)


@lru_cache(maxsize=1024)
def _of_sender(pubkey: str, mesh_id: str) -> tuple[bytes, bytes] | None:
    """Return what all envelopes of a key have in common: the head of the statement, and the raw key.

    None when there is no such key or statement.
    """
    raw = raw_pubkey(pubkey)
    try:
        return None if raw is None else (_statement(_ENVELOPE, mesh_id, pubkey, tail=b""), raw)
    except ValueError:
        return None


def sign_hello(identity: Identity, *, audience: str, mesh_id: str, nonce: bytes, instance_id: str) -> bytes:
    """Sign the answer to a challenge; `audience` is the `host:port` that was dialled."""
    fields = (audience, mesh_id, identity.ed25519_pubkey, to_base64(nonce), instance_id)
    return identity.sign(_statement(_HELLO, *fields))


def verify_hello(
    pubkey: str, *, audience: str, mesh_id: str, nonce: bytes, instance_id: str, signature: bytes
) -> bool:
    """Tell whether `pubkey` has signed the answer to this challenge for this broker and mesh."""
    return _verify(pubkey, signature, _HELLO, audience, mesh_id, pubkey, to_base64(nonce), instance_id)


def sign_join(identity: Identity, *, audience: str, mesh_id: str, invite_id: str, name: str) -> bytes:
    """Sign a join for one broker, invite and name. It covers both keys."""
    fields = (audience, mesh_id, invite_id, name, identity.ed25519_pubkey, identity.x25519_pubkey)
    return identity.sign(_statement(_JOIN, *fields))


def verify_join(
    pubkey: str,
    x25519_pubkey: str,
    *,
    audience: str,
    mesh_id: str,
    invite_id: str,
    name: str,
    signature: bytes,
) -> bool:
    """Tell whether `pubkey` has signed a join with these keys, this invite and this name."""
    return _verify(pubkey, signature, _JOIN, audience, mesh_id, invite_id, name, pubkey, x25519_pubkey)


def sign_rotation(
    identity: Identity, *, mesh_id: str, pubkey: str, x25519_pubkey: str, rotated_at_ms: int
) -> bytes:
    """Sign the rotation from the key of this identity to another pair of keys in one mesh."""
    fields = (mesh_id, identity.ed25519_pubkey, pubkey, x25519_pubkey, str(rotated_at_ms))
    return identity.sign(_statement(_ROTATION, *fields))


def verify_rotation(
    old_pubkey: str, *, mesh_id: str, pubkey: str, x25519_pubkey: str, rotated_at_ms: int, signature: bytes
) -> bool:
    """Tell whether `old_pubkey` has signed the rotation to these keys."""
    fields = (mesh_id, old_pubkey, pubkey, x25519_pubkey, str(rotated_at_ms))
    return _verify(old_pubkey, signature, _ROTATION, *fields)


def sign_request(identity: Identity, *, purpose: str, mesh_id: str, payload: bytes) -> bytes:
    """Sign a statement of another kind, which `purpose` names."""
    return identity.sign(_statement(_REQUEST, purpose, mesh_id, identity.ed25519_pubkey, tail=payload))


def verify_request(pubkey: str, *, purpose: str, mesh_id: str, payload: bytes, signature: bytes) -> bool:
    """Tell whether `pubkey` has signed this payload for this purpose and mesh."""
    return _verify(pubkey, signature, _REQUEST, purpose, mesh_id, pubkey, tail=payload)


def sign_topic_epoch(identity: Identity, mesh_id: str, *fields: str) -> bytes:
    """Sign an epoch of a topic: topic, number, commitment, and the commitment of the epoch before."""
    return identity.sign(_statement(_TOPIC_EPOCH, mesh_id, *fields))


def verify_topic_epoch(pubkey: str, mesh_id: str, *fields: str, signature: bytes) -> bool:
    """Tell whether `pubkey` has signed this epoch of a topic."""
    return _verify(pubkey, signature, _TOPIC_EPOCH, mesh_id, *fields)


def sign_topic_wrap(identity: Identity, mesh_id: str, *fields: str) -> bytes:
    """Sign a wrap: topic, number of the epoch, commitment, key of the recipient, hash of the sealed bytes."""
    return identity.sign(_statement(_TOPIC_WRAP, mesh_id, *fields))


def verify_topic_wrap(pubkey: str, mesh_id: str, *fields: str, signature: bytes) -> bool:
    """Tell whether `pubkey` has signed this wrap."""
    return _verify(pubkey, signature, _TOPIC_WRAP, mesh_id, *fields)


def _verify(pubkey: str, signature: bytes, *fields: str, tail: bytes | None = None) -> bool:
    try:
        statement = _statement(*fields, tail=tail)
    except ValueError:
        return False
    return verify_detached(statement, signature, pubkey)


def _statement(*fields: str, tail: bytes | None = None) -> bytes:
    """Join the fields. `ValueError` for one that holds a zero byte or has no UTF-8 form."""
    text = "\0".join(fields)
    if text.count("\0") != len(fields) - 1:
        raise ValueError("A signed field may not hold a zero byte.")
    return text.encode() if tail is None else b"%b\0%b" % (text.encode(), tail)
