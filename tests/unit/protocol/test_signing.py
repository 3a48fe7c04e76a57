from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from claudemesh.protocol import signing
from tests.support.envelopes import ALICE, BOB, MESH_ID, ULID_TEXT

NONCE = bytes(range(32))

STATEMENTS: dict[str, tuple[Callable[..., bytes], Callable[..., bool], dict[str, Any]]] = {
    "envelope": (
        lambda identity, **fields: signing.sign_envelope(identity, **fields),
        lambda pubkey, **fields: signing.verify_envelope(pubkey, **fields),
        {"mesh_id": MESH_ID, "signed_part": b'{"v":1}'},
    ),
    "hello": (
        signing.sign_hello,
        signing.verify_hello,
        {"audience": "127.0.0.1:7900", "mesh_id": MESH_ID, "nonce": NONCE, "instance_id": ULID_TEXT},
    ),
    "join": (
        signing.sign_join,
        lambda pubkey, **fields: signing.verify_join(pubkey, ALICE.x25519_pubkey, **fields),
        {"audience": "127.0.0.1:7900", "mesh_id": MESH_ID, "invite_id": ULID_TEXT, "name": "bob"},
    ),
    "request": (
        signing.sign_request,
        signing.verify_request,
        {"purpose": "invite", "mesh_id": MESH_ID, "payload": b"raw\0bytes"},
    ),
}


@pytest.mark.parametrize("kind", STATEMENTS)
def test_statement_verifies_for_its_signer_only(kind: str) -> None:
    """The right key verifies; another does not."""
    sign, verify, fields = STATEMENTS[kind]
    signature = sign(ALICE, **fields)
    assert verify(ALICE.ed25519_pubkey, **fields, signature=signature)
    assert not verify(BOB.ed25519_pubkey, **fields, signature=signature)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, name) for kind in STATEMENTS for name in STATEMENTS[kind][2]]
)
def test_every_field_of_a_statement_is_covered(kind: str, field: str) -> None:
    """A replay to another broker, mesh, challenge or instance fails."""
    sign, verify, fields = STATEMENTS[kind]
    signature = sign(ALICE, **fields)
    changed = fields[field] + ("x" if isinstance(fields[field], str) else b"x")
    assert not verify(ALICE.ed25519_pubkey, **{**fields, field: changed}, signature=signature)


def test_join_covers_the_sealing_key() -> None:
    """A proof of possession is for both keys."""
    fields = STATEMENTS["join"][2]
    signature = signing.sign_join(ALICE, **fields)
    assert not signing.verify_join(ALICE.ed25519_pubkey, BOB.x25519_pubkey, **fields, signature=signature)


def test_statements_of_different_kinds_never_verify_as_each_other() -> None:
    """Each kind has a domain string of its own."""
    payload = b'{"v":1}'
    as_request = signing.sign_request(ALICE, purpose="envelope", mesh_id=MESH_ID, payload=payload)
    as_envelope = signing.sign_envelope(ALICE, MESH_ID, payload)
    assert not signing.verify_envelope(ALICE.ed25519_pubkey, MESH_ID, payload, as_request)
    assert not signing.verify_request(
        ALICE.ed25519_pubkey, purpose="envelope", mesh_id=MESH_ID, payload=payload, signature=as_envelope
    )


def test_envelope_statement_is_that_of_the_page() -> None:
    """claudemesh-envelope-v1 00 mesh_id 00 sender's key 00 JCS."""
    statement = b"\0".join(
        (b"claudemesh-envelope-v1", MESH_ID.encode(), ALICE.ed25519_pubkey.encode(), b'{"v":1}')
    )
    assert signing.sign_envelope(ALICE, MESH_ID, b'{"v":1}') == ALICE.sign(statement)


def test_hello_statement_is_that_of_the_page() -> None:
    """claudemesh-hello-v1 00 audience 00 mesh_id 00 pubkey 00 nonce 00 instance_id, the nonce as sent."""
    nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    parts = ("claudemesh-hello-v1", "h:1", MESH_ID, ALICE.ed25519_pubkey, nonce, "i")
    signature = signing.sign_hello(ALICE, audience="h:1", mesh_id=MESH_ID, nonce=NONCE, instance_id="i")
    assert signature == ALICE.sign("\0".join(parts).encode())


@pytest.mark.parametrize("forged", ["127.0.0.1:7900\0" + MESH_ID, "\0", "\ud800"])
def test_field_with_a_zero_byte_is_never_signed_nor_verified(forged: str) -> None:
    """Signing raises, verifying returns False."""
    fields = {**STATEMENTS["hello"][2], "audience": forged}
    with pytest.raises(ValueError, match=r"zero byte|surrogates"):
        signing.sign_hello(ALICE, **fields)
    assert not signing.verify_hello(ALICE.ed25519_pubkey, **fields, signature=b"\0" * 64)
