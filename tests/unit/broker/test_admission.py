"""Admission: a body, an invite and a proof are believed by their signatures alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from claudemesh.broker.addresses import addresses_of
from claudemesh.broker.admission import (
    check_proof,
    invite_row,
    member_of,
    signature_of,
    text_of,
    verified_invite,
)
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.store.types import Member
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import uuid_from_ulid
from tests.support.values import replace
from tests.support.wspeer import Frame, Peer, make_identity, make_invite

MESH = "01900000-0000-7000-8000-000000000000"
URL = "ws://127.0.0.1:7900"
ARRIVED = ("127.0.0.1", 7900)
# Any x25519 key serves as the challenge: possession is proven to another part of the broker.
CHALLENGE = make_identity().x25519_pubkey
OWNER = Peer("owner", make_identity(), MESH, "home", "member-owner", URL, CHALLENGE)
JOINER = make_identity()
FRESH = "01J0000000000000000000000A"
ADDRESSES = addresses_of(BrokerSettings(listen="127.0.0.1:7900"), "host.lan")


def body() -> Frame:
    """The body of a join by an invite of the owner's."""
    return OWNER.join_body(make_invite(OWNER), "bob", JOINER)


def made(raw: Frame) -> Member:
    """The member of a body."""
    return member_of(raw, mesh_id=MESH, role="member", ephemeral=False, fresh_id=FRESH, now_ms=7)


def code(act: Callable[[], object]) -> str:
    """Return the code of the error that an act raises."""
    with pytest.raises(ProtocolError) as caught:
        act()
    return caught.value.code


def test_a_member_has_the_keys_and_the_name_of_its_body() -> None:
    member = made(body())
    assert (member.name, member.role, member.status, member.ephemeral) == ("bob", "member", "active", False)
    assert (member.ed25519_pubkey, member.x25519_pubkey) == (JOINER.ed25519_pubkey, JOINER.x25519_pubkey)
    assert (member.id, member.created_at) == (uuid_from_ulid(FRESH), 7)


def test_the_sealing_key_must_be_signed_by_the_identity_key() -> None:
    other = make_identity()
    assert code(lambda: made(body() | {"x25519_pubkey": other.x25519_pubkey})) == "bad_signature"


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("key_id", "k_1", "invalid_key_id"),
        ("key_id", None, "invalid_key_id"),
        ("x25519_signature", "AAAA", "invalid_signature"),
        ("x25519_signature", 7, "invalid_signature"),
    ],
)
def test_a_field_that_is_not_valid_is_named(field: str, value: object, error: str) -> None:
    with pytest.raises(InvalidField) as caught:
        made(body() | {field: value})
    assert (caught.value.code, caught.value.fields["field"]) == (error, field)


def test_an_invite_counts_with_its_signature_only() -> None:
    raw = body()
    invite = verified_invite(raw)
    row = invite_row(invite)
    assert (row.mesh_id, row.created_by, row.role, row.used_count) == (MESH, OWNER.pubkey, "member", 0)
    link = str(raw["invite"])
    forged = replace(invite, role="owner").to_link()
    assert forged != link
    assert code(lambda: verified_invite(raw | {"invite": forged})) == "bad_signature"


def test_a_proof_is_for_one_broker_and_one_name() -> None:
    raw = body()
    invite, member = verified_invite(raw), made(raw)
    proof = signature_of(raw["proof"], "proof")
    check_proof(invite, member, proof, ADDRESSES, ARRIVED)
    renamed = made(raw | {"name": "eve"})
    assert code(lambda: check_proof(invite, renamed, proof, ADDRESSES, ARRIVED)) == "bad_signature"
    elsewhere = ("127.0.0.1", 7901)
    assert code(lambda: check_proof(invite, member, proof, ADDRESSES, elsewhere)) == "wrong_address"


@pytest.mark.parametrize("value", ["", "x" * 9, "a\nb", 7, None])
def test_a_text_has_a_length_and_no_control_characters(value: object) -> None:
    assert text_of("right", "word", 8) == "right"
    assert code(lambda: text_of(value, "word", 8)) == "invalid_word"
