"""A seal of topics and queues that costs nothing: the broker cannot tell it from a real one.

Every mesh has the same key for the first epoch of a topic, and a body only looks sealed. The epoch is
registered before the first send of a connection, and a worker has a wrap that opens to nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from claudemesh.protocol.envelope import Seal
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.topic_keys import NONCE_BYTES, WRAP_BYTES, TopicKey, sign_epoch

KEY_EPOCH = 1
_NONCE = b"the cheap seal of tests".ljust(NONCE_BYTES)
_NONCE_TEXT = b64encode(_NONCE).decode()


class Member(Protocol):
    """The part of a peer that is needed here."""

    @property
    def identity(self) -> Identity:
        """Its keys."""
        ...

    @property
    def mesh_id(self) -> str:
        """Its mesh."""
        ...


def cheap_seal(identity: Identity) -> Seal:
    """The seal of a body that only looks sealed."""
    return Seal("secretbox", _NONCE, identity.key_id, key_epoch=KEY_EPOCH)


def is_cheap(envelope: Mapping[str, Any]) -> bool:
    """Whether an envelope has such a seal."""
    seal = envelope.get("seal")
    return isinstance(seal, dict) and seal.get("nonce") == _NONCE_TEXT


def cheap_epoch(by: Member, topic: str, recipients: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters of `topic_epoch_create`, with wraps for the keys of members."""
    epoch = sign_epoch(by.identity, by.mesh_id, TopicKey(topic, KEY_EPOCH, bytes(32)))
    wraps = [cheap_wrap(by, recipient) for recipient in recipients]
    return {"topic": topic, "expected": 0, "epoch": epoch.to_dict(), "wraps": wraps}


def cheap_wrap(by: Member, recipient: str) -> dict[str, Any]:
    """A wrap by a member that opens to nothing."""
    return {
        "key_epoch": KEY_EPOCH,
        "recipient": recipient,
        "wrapped_by": by.identity.ed25519_pubkey,
        "nonce": _NONCE_TEXT,
        "ciphertext": b64encode(bytes(WRAP_BYTES)).decode(),
        "signature": b64encode(bytes(64)).decode(),
    }
