"""Keys of topics and queues: epochs, commitments and wraps (docs/spec/protocol.md, Keys of topics).

A topic has one key for each of its epochs, which count from 1. The maker of an epoch signs the commitment to
its key. A wrap is the key sealed to one member; it counts only if it opens to the key of the commitment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import (
    crypto_secretbox,
    crypto_secretbox_KEYBYTES,
    crypto_secretbox_NONCEBYTES,
    crypto_secretbox_open,
)
from nacl.exceptions import CryptoError

from claudemesh.protocol import fields
from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.envelope import MAC_BYTES, MAX_KEY_EPOCH
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import HEX_32
from claudemesh.protocol.keys import SIGNATURE_BYTES, Identity
from claudemesh.protocol.sealing import open_box, seal_box
from claudemesh.protocol.signing import (
    sign_topic_epoch,
    sign_topic_wrap,
    verify_topic_epoch,
    verify_topic_wrap,
)

KEY_BYTES: Final = crypto_secretbox_KEYBYTES
NONCE_BYTES: Final = crypto_secretbox_NONCEBYTES
WRAP_BYTES: Final = KEY_BYTES + MAC_BYTES
# Wraps in one call, wraps of one recipient in an epoch, and epochs that a broker accepts unless it says more.
MAX_WRAPS: Final = 500
MAX_WRAPS_A_RECIPIENT: Final = 4
DEFAULT_KEY_EPOCHS: Final = 3

_COMMITMENT: Final = b"claudemesh-topic-key-v1"


@dataclass(frozen=True, slots=True)
class TopicKey:
    """The key of one epoch of a topic or queue."""

    topic: str
    key_epoch: int
    key: bytes = field(repr=False)

    def commitment(self, mesh_id: str) -> str:
        """Return the commitment to this key in a mesh."""
        return commitment(mesh_id, self.topic, self.key_epoch, self.key)


def commitment(mesh_id: str, topic: str, key_epoch: int, key: bytes) -> str:
    """Return the public commitment to a key, in hexadecimal."""
    parts = (_COMMITMENT, mesh_id.encode(), topic.encode(), str(key_epoch).encode(), key)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def seal_secret(plaintext: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return a body sealed with a topic key, 16 bytes more. A nonce (24 bytes) must be used only once."""
    return crypto_secretbox(plaintext, nonce, key)


def open_secret(sealed: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the plaintext. `ProtocolError` cannot_open: the key, the nonce or the sealed bytes differ."""
    try:
        return crypto_secretbox_open(sealed, nonce, key)
    except (CryptoError, ValueError) as error:
        raise ProtocolError(
            "cannot_open", "The body was sealed with another topic key, or it was changed."
        ) from error


@dataclass(frozen=True, slots=True)
class EpochStatement:
    """The statement of the maker of an epoch. `previous_commitment` is empty for the first epoch.

    `created_at` is the time at which the broker took it, in Unix milliseconds, and not signed.
    """

    topic: str
    key_epoch: int
    commitment: str
    previous_commitment: str
    created_by: str
    signature: bytes
    created_at: int | None = None

    @classmethod
    def parse(cls, value: fields.Json, topic: str) -> EpochStatement:
        """Return the statement of a JSON object, not verified yet. `InvalidField`: the first wrong field."""
        has_previous = value.get("previous_commitment") != ""
        return cls(
            topic,
            key_epoch_of(value),
            fields.matching(value, "commitment", HEX_32),
            fields.matching(value, "previous_commitment", HEX_32) if has_previous else "",
            fields.matching(value, "created_by", HEX_32),
            fields.binary(value, "signature", SIGNATURE_BYTES),
            fields.optional_timestamp(value, "created_at"),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object. The call that carries it names the topic."""
        return {
            "key_epoch": self.key_epoch,
            "commitment": self.commitment,
            "previous_commitment": self.previous_commitment,
            "created_by": self.created_by,
            "signature": to_base64(self.signature),
            **({} if self.created_at is None else {"created_at": self.created_at}),
        }


def sign_epoch(
    identity: Identity, mesh_id: str, topic_key: TopicKey, previous_commitment: str = ""
) -> EpochStatement:
    """Return the statement by which a member makes an epoch."""
    made = topic_key.commitment(mesh_id)
    covered = (topic_key.topic, str(topic_key.key_epoch), made, previous_commitment)
    return EpochStatement(
        topic_key.topic,
        topic_key.key_epoch,
        made,
        previous_commitment,
        identity.ed25519_pubkey,
        sign_topic_epoch(identity, mesh_id, *covered),
    )


def verify_epoch(mesh_id: str, statement: EpochStatement, signer_keys: Container[str]) -> bool:
    """Tell whether the maker has signed this epoch, and its key is one of `signer_keys`."""
    if statement.created_by not in signer_keys:
        return False
    return verify_topic_epoch(
        statement.created_by,
        mesh_id,
        statement.topic,
        str(statement.key_epoch),
        statement.commitment,
        statement.previous_commitment,
        signature=statement.signature,
    )


@dataclass(frozen=True, slots=True)
class Wrap:
    """A topic key sealed to one member. `recipient` and `wrapped_by` are ed25519 keys.

    The commitment is that of the epoch and not part of the JSON object.
    """

    topic: str
    key_epoch: int
    commitment: str
    recipient: str
    wrapped_by: str
    nonce: bytes
    ciphertext: bytes
    signature: bytes

    @classmethod
    def parse(cls, value: fields.Json, topic: str, commitments: Mapping[int, str]) -> Wrap:
        """Return the wrap of a JSON object, not verified yet. `commitments` are those of known epochs.

        `InvalidField` names the first wrong field.
        """
        key_epoch = key_epoch_of(value)
        known = commitments.get(key_epoch)
        if known is None:
            fields.refuse("key_epoch", "be an epoch that is stated here")
        return cls(
            topic,
            key_epoch,
            known,
            fields.matching(value, "recipient", HEX_32),
            fields.matching(value, "wrapped_by", HEX_32),
            fields.binary(value, "nonce", NONCE_BYTES),
            fields.binary(value, "ciphertext", WRAP_BYTES),
            fields.binary(value, "signature", SIGNATURE_BYTES),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object. The call that carries it names the topic."""
        return {
            "key_epoch": self.key_epoch,
            "recipient": self.recipient,
            "wrapped_by": self.wrapped_by,
            "nonce": to_base64(self.nonce),
            "ciphertext": to_base64(self.ciphertext),
            "signature": to_base64(self.signature),
        }

    def verify(self, mesh_id: str) -> bool:
        """Tell whether its wrapper has signed this wrap for this mesh."""
        return verify_topic_wrap(self.wrapped_by, mesh_id, *self._covered(), signature=self.signature)

    def _covered(self) -> tuple[str, ...]:
        return _covered(
            self.topic, self.key_epoch, self.commitment, self.recipient, self.nonce, self.ciphertext
        )


def make_wrap(
    identity: Identity, mesh_id: str, topic_key: TopicKey, *, recipient: str, shared: bytes, nonce: bytes
) -> Wrap:
    """Return the key of an epoch wrapped for one member.

    `recipient` is its ed25519 key, and `shared` the 32 bytes that the x25519 keys of both members share
    (`BoxKeys.shared`). A nonce (24 bytes) must be used only once.
    """
    ciphertext = seal_box(topic_key.key, nonce, shared)
    made = topic_key.commitment(mesh_id)
    covered = _covered(topic_key.topic, topic_key.key_epoch, made, recipient, nonce, ciphertext)
    return Wrap(
        topic_key.topic,
        topic_key.key_epoch,
        made,
        recipient,
        identity.ed25519_pubkey,
        nonce,
        ciphertext,
        sign_topic_wrap(identity, mesh_id, *covered),
    )


def open_wrap(mesh_id: str, wrap: Wrap, shared: bytes) -> TopicKey:
    """Return the key in a wrap; `shared` as for `make_wrap`.

    `ProtocolError` wrong_wrap: its wrapper has not signed it, it does not open, or it holds another key than
    the commitment says. The caller decides whether the wrapper is a member.
    """
    if not wrap.verify(mesh_id):
        raise _wrong_wrap("its signature is not that of its wrapper")
    try:
        key = open_box(wrap.ciphertext, wrap.nonce, shared)
    except ProtocolError as error:
        raise _wrong_wrap("it was sealed to other keys") from error
    if commitment(mesh_id, wrap.topic, wrap.key_epoch, key) != wrap.commitment:
        raise _wrong_wrap("it holds another key than the epoch's")
    return TopicKey(wrap.topic, wrap.key_epoch, key)


def key_epoch_of(value: fields.Json, name: str = "key_epoch") -> int:
    """Return the number of an epoch, from 1. `InvalidField` for another value."""
    found = value.get(name)
    if type(found) is not int or not 1 <= found <= MAX_KEY_EPOCH:
        fields.refuse(name, f"be a whole number from 1 to {MAX_KEY_EPOCH}")
    return found


def _covered(
    topic: str, key_epoch: int, made: str, recipient: str, nonce: bytes, ciphertext: bytes
) -> tuple[str, ...]:
    sealed = hashlib.sha256(nonce + ciphertext).hexdigest()
    return (topic, str(key_epoch), made, recipient, sealed)


def _wrong_wrap(reason: str) -> ProtocolError:
    return ProtocolError("wrong_wrap", f"The wrap of the topic key is not usable: {reason}.")
