"""The pure part of a handshake: which address a hello may name, and what it proves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from claudemesh.broker.handshake import NOT_A_MEMBER, audiences, check_hello, check_member
from claudemesh.broker.store.base import Member
from claudemesh.protocol import CloseCode, Hello, sign_hello
from tests.support.wspeer import make_identity

NONCE = bytes(range(32))
MESH = "01900000-0000-7000-8000-000000000000"
ADA = make_identity()


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


@pytest.mark.parametrize(
    ("host", "public", "expected"),
    [
        ("127.0.0.1:7900", None, {"127.0.0.1:7900"}),
        ("Mesh.Example.org:1", None, {"mesh.example.org:1"}),
        ("mesh.example.org", None, {"mesh.example.org:80", "mesh.example.org:443"}),
        ("[::1]:7900", None, {"[::1]:7900"}),
        ("[::1]", None, {"[::1]:80", "[::1]:443"}),
        ("", None, set()),
        ("127.0.0.1:7900", "mesh.example.org:443", {"mesh.example.org:443"}),
    ],
)
def test_the_audience_is_the_public_url_or_what_was_dialled(
    host: str, public: str | None, expected: set[str]
) -> None:
    """Exact with --public-url, otherwise the Host of the request."""
    assert audiences(host, public) == expected


def test_a_right_hello_proves_itself() -> None:
    """Nothing but the signed transcript is needed."""
    assert check_hello(hello(), NONCE, frozenset({"mesh:7900"})) is None


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
    refusal = check_hello(changed, NONCE, frozenset({"mesh:7900", "other:7900"}))
    assert refusal is not None
    assert refusal.code is CloseCode.UNAUTHENTICATED


def test_a_hello_answers_one_challenge() -> None:
    """Another nonce, another answer."""
    assert check_hello(hello(), bytes(32), frozenset({"mesh:7900"})) is not None


def test_a_hello_for_another_address_is_refused_before_its_signature_counts() -> None:
    """The audience must be ours."""
    refusal = check_hello(hello("evil:1"), NONCE, frozenset({"mesh:7900"}))
    assert refusal is not None
    assert refusal.code is CloseCode.UNAUTHENTICATED


def test_only_an_active_member_with_its_current_key_comes_in() -> None:
    """Revoked is told apart; a rotated-out key and a member that left are not members."""
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
    assert rotated == NOT_A_MEMBER
