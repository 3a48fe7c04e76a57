from __future__ import annotations

import pytest

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.keys import Identity, new_identity, verify_detached, verify_key_binding
from tests.support.envelopes import ALICE, BOB, ULID_TEXT

FIELD_PRIME = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
LOW_ORDER = [
    (0).to_bytes(32, "little").hex(),
    (1).to_bytes(32, "little").hex(),
    (FIELD_PRIME - 1).to_bytes(32, "little").hex(),
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
]
NOT_CANONICAL = [
    FIELD_PRIME.to_bytes(32, "little").hex(),
    (FIELD_PRIME + 9).to_bytes(32, "little").hex(),
    "f" * 64,
]


def test_same_entropy_makes_the_same_keys() -> None:
    """Entropy is an argument."""
    key_id = "k_" + ULID_TEXT
    assert new_identity(lambda count: b"\7" * count, key_id) == new_identity(
        lambda count: b"\7" * count, key_id
    )


def test_public_keys_are_those_of_rfc_8032() -> None:
    """Test vector 1: the seed gives this public key and this signature of nothing."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    made = new_identity(lambda count: seed, "k_" + ULID_TEXT)
    assert made.ed25519_pubkey == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert (
        made.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555")
    )


def test_identity_survives_its_file() -> None:
    """to_json and from_json are inverse."""
    assert Identity.from_json(ALICE.to_json()) == ALICE


def test_secrets_are_not_shown() -> None:
    """The repr of an identity has no private key."""
    shown = repr(ALICE)
    assert ALICE.ed25519_seed.hex() not in shown
    assert repr(ALICE.ed25519_seed) not in shown
    assert repr(ALICE.x25519_privkey) not in shown


@pytest.mark.parametrize("field", sorted(ALICE.to_json()))
@pytest.mark.parametrize("value", [None, "", 5, "0" * 64, "zz"])
def test_key_file_that_does_not_match_is_refused(field: str, value: object) -> None:
    """The message names the field and never its value."""
    with pytest.raises(ProtocolError) as caught:
        Identity.from_json({**ALICE.to_json(), field: value})
    assert caught.value.code == "malformed_key"
    assert ALICE.ed25519_seed.hex() not in caught.value.message


def test_binding_ties_both_keys() -> None:
    """Each x25519 key is signed by its ed25519 key."""
    assert verify_key_binding(ALICE.ed25519_pubkey, ALICE.x25519_pubkey, ALICE.x25519_signature)
    assert not verify_key_binding(BOB.ed25519_pubkey, ALICE.x25519_pubkey, ALICE.x25519_signature)
    assert not verify_key_binding(ALICE.ed25519_pubkey, BOB.x25519_pubkey, ALICE.x25519_signature)
    assert not verify_key_binding(ALICE.ed25519_pubkey, ALICE.x25519_pubkey, BOB.x25519_signature)
    assert not verify_key_binding("nonsense", ALICE.x25519_pubkey, ALICE.x25519_signature)


@pytest.mark.parametrize("point", [*LOW_ORDER, *NOT_CANONICAL, "", "0" * 62])
def test_binding_refuses_unusable_points(point: str) -> None:
    """Low order, not canonical, wrong length: refused even when signed."""
    message = b"\0".join((b"claudemesh-x25519-v1", ALICE.ed25519_pubkey.encode(), point.encode()))
    assert verify_detached(message, ALICE.sign(message), ALICE.ed25519_pubkey)
    assert not verify_key_binding(ALICE.ed25519_pubkey, point, ALICE.sign(message))


def test_malleated_signature_is_refused() -> None:
    """S plus the group order satisfies the equation, and is not the signature."""
    signature = ALICE.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert verify_detached(b"m", signature, ALICE.ed25519_pubkey)
    assert not verify_detached(b"m", signature[:32] + scalar.to_bytes(32, "little"), ALICE.ed25519_pubkey)


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 64, b"\0" * 65])
@pytest.mark.parametrize("pubkey", ["", "x", "0" * 64, "01" + "00" * 31, "f" * 64, ALICE.ed25519_pubkey])
def test_weak_keys_and_malformed_signatures_do_not_verify(pubkey: str, signature: bytes) -> None:
    """False, never an exception."""
    assert not verify_detached(b"m", signature, pubkey)
