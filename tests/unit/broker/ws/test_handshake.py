"""The pure part of a handshake: which address a hello may name, and what it proves."""

from __future__ import annotations

from typing import Any

import pytest

from claudemesh.broker.addresses import Addresses
from claudemesh.broker.store.types import Member
from claudemesh.broker.ws.handshake import KEY_ROTATED_OUT, check_hello, check_member
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.frames import Hello
from claudemesh.protocol.signing import sign_hello
from tests.support.values import replace
from tests.support.wspeer import make_identity

NONCE = bytes(range(32))
MESH = "01900000-0000-7000-8000-000000000000"
ADA = make_identity()
ARRIVED = ("10.0.0.1", 7900)
HERE = Addresses(("ws://mesh:7900",), frozenset(), "ws")
BOTH = Addresses(("ws://mesh:7900", "ws://other:7900"), frozenset(), "ws")


def hello(audience: str = "mesh:7900") -> Hello:
    """Return a hello that is right in every field."""
    signature = sign_hello(ADA, audience=audience, mesh_id=MESH, nonce=NONCE, instance_id="i1")
    return Hello(
        mesh_id=MESH,
        pubkey=ADA.ed25519_pubkey,
        key_id=ADA.key_id,
        name="ada",
        host_fingerprint="",
        daemon_version="0",
        instance_id="i1",
        ephemeral=False,
        audience=audience,
        signature=signature,
    )


def test_a_right_hello_proves_itself() -> None:
    """Nothing but the signed transcript is needed."""
    assert check_hello(hello(), NONCE, HERE, ARRIVED) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mesh_id", "01900000-0000-7000-8000-000000000001"),
        pytest.param("pubkey", make_identity().ed25519_pubkey, id="pubkey"),
        ("instance_id", "i2"),
        ("audience", "other:7900"),
        ("signature", bytes(64)),
    ],
)
def test_each_signed_field_matters(field: str, value: Any) -> None:
    """A hello with one field changed proves nothing, even if its audience is one of ours."""
    changed = replace(hello(), **{field: value})
    refusal = check_hello(changed, NONCE, BOTH, ARRIVED)
    assert refusal is not None
    assert refusal.code is CloseCode.UNAUTHENTICATED


def test_a_hello_answers_one_challenge() -> None:
    """Another nonce, another answer."""
    assert check_hello(hello(), bytes(32), HERE, ARRIVED) is not None


def test_a_hello_for_another_address_is_refused_before_its_signature_counts() -> None:
    """The audience must be ours."""
    refusal = check_hello(hello("evil:1"), NONCE, HERE, ARRIVED)
    assert refusal is not None
    assert refusal.code is CloseCode.UNAUTHENTICATED


def test_only_an_active_member_with_its_current_key_comes_in() -> None:
    """A revoked member and a rotated-out key are told apart; a member that left is not one."""
    member = Member(
        id="m",
        mesh_id=MESH,
        name="ada",
        role="member",
        status="active",
        ed25519_pubkey=ADA.ed25519_pubkey,
        x25519_pubkey=ADA.x25519_pubkey,
        x25519_signature=b"",
        key_id=ADA.key_id,
        ephemeral=False,
        created_at=0,
    )
    assert check_member(hello(), member) is None
    revoked = check_member(hello(), replace(member, status="revoked"))
    left = check_member(hello(), replace(member, status="left"))
    rotated = check_member(hello(), replace(member, ed25519_pubkey="00" * 32))
    assert revoked is not None
    assert revoked.code is CloseCode.REVOKED
    assert left is not None
    assert left.code is CloseCode.UNAUTHENTICATED
    assert rotated == KEY_ROTATED_OUT
    assert check_member(hello(), replace(member, ed25519_pubkey="00" * 32, status="revoked")) == revoked
