"""Proof of possession: only the holder of the key can give it, for one member."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

import pytest
from nacl.bindings import crypto_scalarmult_base

from claudemesh.protocol.possession import challenge_keypair, prove_possession, verify_possession
from tests.support.wspeer import make_identity

SECRET = b"an admin token of some length"
ALICE, MALLORY = make_identity(), make_identity()


def test_the_holder_of_both_keys_is_believed_by_every_broker_with_the_secret() -> None:
    privkey, pubkey = challenge_keypair(SECRET)
    proof = prove_possession(ALICE.x25519_privkey, pubkey, ALICE.ed25519_pubkey)
    assert verify_possession(challenge_keypair(SECRET)[0], ALICE.ed25519_pubkey, ALICE.x25519_pubkey, proof)
    assert not verify_possession(
        challenge_keypair(b"another secret entirely")[0], ALICE.ed25519_pubkey, ALICE.x25519_pubkey, proof
    )
    assert len(privkey) == 32


def test_a_guess_of_the_secret_is_dear() -> None:
    """The public key is known to all: without a cost, guesses of the admin token could avoid the rate
    limit."""

    def cost(work: Callable[[bytes], object]) -> float:
        began = time.thread_time()
        for number in range(5):
            work(b"guess number %d of many" % number)
        return time.thread_time() - began

    def hashed(guess: bytes) -> bytes:
        return crypto_scalarmult_base(hashlib.sha256(guess).digest())

    assert cost(challenge_keypair) > 50 * cost(hashed)


def test_a_key_of_another_member_cannot_be_claimed() -> None:
    """Not with another private key, not with the proof of the holder, and not with a guess."""
    privkey, pubkey = challenge_keypair(SECRET)
    claims = [
        prove_possession(MALLORY.x25519_privkey, pubkey, MALLORY.ed25519_pubkey),
        prove_possession(ALICE.x25519_privkey, pubkey, ALICE.ed25519_pubkey),
        secrets.token_bytes(32),
        b"",
    ]
    for proof in claims:
        assert not verify_possession(privkey, MALLORY.ed25519_pubkey, ALICE.x25519_pubkey, proof)


@pytest.mark.parametrize("key", ["00" * 32, "01" + "00" * 31, "not hex", ""])
def test_unusable_keys_prove_nothing(key: str) -> None:
    """Points of low order share the same key with every other key."""
    privkey, _ = challenge_keypair(SECRET)
    assert not verify_possession(privkey, ALICE.ed25519_pubkey, key, b"\0" * 32)
    with pytest.raises(ValueError, match="challenge key"):
        prove_possession(ALICE.x25519_privkey, key, ALICE.ed25519_pubkey)
