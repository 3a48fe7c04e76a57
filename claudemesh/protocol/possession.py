"""Proof of possession of an x25519 key (docs/spec/protocol.md, Keys of members).

The signature by the ed25519 key shows that a member claims an x25519 key, not that it holds the private
key. The proof is a MAC under the secret that the claimed key shares with a challenge key of the broker. Only
the holder of one of the two private keys can compute it. It covers the ed25519 key, so another member cannot
use it.
"""

from __future__ import annotations

import hashlib
import hmac

from nacl.bindings import (
    crypto_box_beforenm,
    crypto_pwhash_alg,
    crypto_pwhash_ALG_ARGON2ID13,
    crypto_pwhash_SALTBYTES,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from claudemesh.protocol.ids import HEX_32

_SALT = hashlib.sha256(b"claudemesh-join-challenge-v1").digest()[:crypto_pwhash_SALTBYTES]
_KEY_BYTES, _PASSES, _MEMORY = 32, 2, 16 << 20
_PROOF = "claudemesh-x25519-proof-v1"


def challenge_keypair(secret: bytes) -> tuple[bytes, str]:
    """Return the private and the public challenge key of brokers that share a secret of 16 bytes or more.

    The public key is given to strangers, so guesses of the secret can be checked against it. Each guess costs
    16 MiB and tens of milliseconds.
    """
    privkey = crypto_pwhash_alg(_KEY_BYTES, secret, _SALT, _PASSES, _MEMORY, crypto_pwhash_ALG_ARGON2ID13)
    return privkey, crypto_scalarmult_base(privkey).hex()


def prove_possession(x25519_privkey: bytes, challenge_pubkey: str, ed25519_pubkey: str) -> bytes:
    """Return the proof, 32 bytes. `ValueError`: the challenge key is unusable."""
    mac = _mac(x25519_privkey, challenge_pubkey, ed25519_pubkey, crypto_scalarmult_base(x25519_privkey).hex())
    if mac is None:
        raise ValueError("The broker's challenge key is not an x25519 key.")
    return mac


def verify_possession(
    challenge_privkey: bytes, ed25519_pubkey: str, x25519_pubkey: str, proof: bytes
) -> bool:
    """Tell whether the holder of the ed25519 key holds the x25519 key too. Raises nothing."""
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
