"""Requests for a rotation of keys, as a member's daemon makes them."""

from __future__ import annotations

from base64 import b64encode

from claudemesh.protocol.keys import Identity
from claudemesh.protocol.possession import prove_possession
from claudemesh.protocol.rotation import PURPOSE, make_rotation
from claudemesh.protocol.signing import sign_request
from tests.support.wspeer import Frame, Peer


def request_of(peer: Peer, new: Identity, old: Identity | None = None) -> Frame:
    """Return the parameters of a rotation to new keys."""
    statement = make_rotation(old or peer.identity, new, mesh_id=peer.mesh_id, rotated_at_ms=1)
    proof = sign_request(new, purpose=PURPOSE, mesh_id=peer.mesh_id, payload=statement.signature)
    possession = prove_possession(new.x25519_privkey, peer.challenge, new.ed25519_pubkey)
    return {
        "rotations": [statement.to_dict()],
        "x25519_signature": b64encode(new.x25519_signature).decode(),
        "key_id": new.key_id,
        "proof": b64encode(proof).decode(),
        "x25519_proof": b64encode(possession).decode(),
    }
