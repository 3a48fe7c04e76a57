"""Proof of possession of an x25519 key (protocol.md, Envelope).

A signature by the ed25519 key says which x25519 key a member claims; it does not show that the member can
open what is sealed to it. The proof is a MAC under the key that the claimed x25519 key shares with a
challenge key of the broker: only the holder of either private key can compute it. The ed25519 key is
covered, so the proof of one member is of no use to another.
"""

from __future__ import annotations

import hashlib
import hmac

from nacl.bindings import crypto_box_beforenm, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from claudemesh.protocol.ids import HEX_32

PROOF_BYTES = 32
_CHALLENGE = b"claudemesh-join-challenge-v1"
_PROOF = "claudemesh-x25519-proof-v1"


def challenge_keypair(secret: bytes) -> tuple[bytes, str]:
    """Return the private and public challenge key of all brokers that share a secret of at least 16 bytes."""
    privkey = hashlib.sha256(_CHALLENGE + b"\0" + secret).digest()
    return privkey, crypto_scalarmult_base(privkey).hex()


def prove_possession(x25519_privkey: bytes, challenge_pubkey: str, ed25519_pubkey: str) -> bytes:
    """Return the 32 bytes that prove possession to the broker. `ValueError` for an unusable challenge key."""
    mac = _mac(x25519_privkey, challenge_pubkey, ed25519_pubkey, crypto_scalarmult_base(x25519_privkey).hex())
    if mac is None:
        raise ValueError("the broker's challenge key is not an x25519 key")
    return mac


def verify_possession(
    challenge_privkey: bytes, ed25519_pubkey: str, x25519_pubkey: str, proof: bytes
) -> bool:
    """Return whether the holder of the ed25519 key holds the x25519 key as well. Never raises."""
    mac = _mac(challenge_privkey, x25519_pubkey, ed25519_pubkey, x25519_pubkey)
    return mac is not None and hmac.compare_digest(mac, proof)


def _mac(own_privkey: bytes, other_pubkey: str, ed25519_pubkey: str, x25519_pubkey: str) -> bytes | None:
    if HEX_32.fullmatch(other_pubkey) is None:
        return None
    try:
        shared = crypto_box_beforenm(bytes.fromhex(other_pubkey), own_privkey)
    except CryptoError:
        return None
    statement = "\0".join((_PROOF, ed25519_pubkey, x25519_pubkey)).encode()
    return hmac.digest(shared, statement, "sha256")
