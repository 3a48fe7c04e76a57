"""A valid envelope and the identities behind it: tests build the valid case, then change one field."""

from __future__ import annotations

import hashlib
from typing import Any

from claudemesh.protocol.envelope import Envelope, Seal, build_envelope
from claudemesh.protocol.keys import Identity, new_identity

MESH_ID = "018f2f6e-0000-7000-8000-000000000001"
MEMBER_ID = "018f2f6e-0000-7000-8000-0000000000aa"
ULID_TEXT = "01HQXW5Z3Y8C6T0V9R4N2M7K1P"
NONCE = bytes(range(24))
BODY = b"sealed bytes, sixteen at least"


def identity(seed: str) -> Identity:
    """The same keys for the same seed, with a key_id that belongs to them."""
    counter = iter(range(256))

    def entropy(count: int) -> bytes:
        return hashlib.shake_256(f"{seed}/{next(counter)}".encode()).digest(count)

    return new_identity(entropy, "k_" + ULID_TEXT)


ALICE = identity("alice")
BOB = identity("bob")


def build(**changes: Any) -> Envelope:
    """A dm from Alice to Bob, with changes."""
    fields: dict[str, Any] = {
        "identity": ALICE,
        "mesh_id": MESH_ID,
        "client_message_id": "deploy-42",
        "destination_kind": "dm",
        "destination_ref": BOB.ed25519_pubkey,
        "reply_to_id": ULID_TEXT,
        "priority": "next",
        "mentions": (BOB.ed25519_pubkey,),
        "body": BODY,
        "seal": Seal("box", NONCE, ALICE.key_id, BOB.key_id),
    }
    return build_envelope(**{**fields, **changes})


def build_topic(**changes: Any) -> Envelope:
    """A topic post by Alice, unsealed, with changes."""
    seal = Seal("none", b"", ALICE.key_id)
    return build(**{"destination_kind": "topic", "destination_ref": "alerts", "seal": seal, **changes})
