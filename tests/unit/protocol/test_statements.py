"""Statements of members about members (docs/spec/protocol.md, Statements)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.authority import judge_leave, judge_revocation, judge_role, may_state
from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.fields import MAX_TIME_MS
from claudemesh.protocol.statements import KINDS, Statement, newest, sign_statement
from claudemesh.protocol.wire import ROLES, Role
from tests.support.values import replace
from tests.support.wspeer import make_identity

MESH_ID = "01899e2d-0000-7000-8000-000000000001"
OTHER_MESH = "01899e2d-0000-7000-8000-000000000002"
SUBJECT = "01899e2d-0000-7000-8000-00000000000a"
SIGNER, STRANGER = make_identity(), make_identity()
DETAILS = {
    "revocation": {"pubkey": STRANGER.ed25519_pubkey},
    "role": {"role": "admin"},
    "replacement": {"name": "bob", "invite_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
}
RANK = {"member": 0, "admin": 1, "owner": 2}

kinds = st.sampled_from(sorted(DETAILS))
times = st.integers(0, MAX_TIME_MS)


def made(kind: str, at_ms: int = 7) -> Statement:
    return sign_statement(SIGNER, kind, mesh_id=MESH_ID, subject=SUBJECT, at_ms=at_ms, **DETAILS[kind])


@given(kinds, times)
def test_a_statement_is_read_as_it_was_made(kind: str, at_ms: int) -> None:
    """The JSON form holds everything, and the signature is valid for it."""
    statement = made(kind, at_ms)
    assert Statement.parse(statement.to_dict()) == statement
    assert statement.verify(MESH_ID)
    assert {name: statement.detail(name) for name in DETAILS[kind]} == DETAILS[kind]


@given(kinds, st.data())
def test_a_change_of_any_field_takes_the_signature_away(kind: str, data: st.DataObject) -> None:
    """Mesh, kind, subject, time, signer, details and signature are all covered."""
    value = made(kind).to_dict()
    others: dict[str, Any] = {
        "mesh_id": OTHER_MESH,
        "subject": OTHER_MESH,
        "at_ms": 8,
        "signer": STRANGER.ed25519_pubkey,
        "signature": to_base64(bytes(64)),
        "details": {
            "revocation": {"pubkey": SIGNER.ed25519_pubkey},
            "role": {"role": "owner"},
            "replacement": DETAILS["replacement"] | {"name": "mallory"},
        }[kind],
    }
    field = data.draw(st.sampled_from(sorted(others)))
    changed = Statement.parse({**value, field: others[field]})
    assert not changed.verify(MESH_ID)
    assert not changed.verify(changed.mesh_id)


def test_a_statement_counts_in_its_own_mesh_alone() -> None:
    """A statement of one mesh is no statement of another, however it is asked for."""
    for kind in DETAILS:
        assert made(kind).verify(MESH_ID)
        assert not made(kind).verify(OTHER_MESH)
        assert not replace(made(kind), mesh_id=OTHER_MESH).verify(OTHER_MESH)


@given(
    kinds,
    st.sampled_from(["v", "mesh_id", "kind", "subject", "at_ms", "signer", "details", "signature"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(max_value=-1),
        st.floats(),
        st.text(max_size=8),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    ),
)
def test_a_value_of_another_form_is_refused(kind: str, field: str, value: object) -> None:
    """Each field has one form; a refusal is an `InvalidField`, never another error."""
    broken = {**made(kind).to_dict(), field: value}
    with pytest.raises(InvalidField):
        Statement.parse(broken)
    broken.pop(field)
    with pytest.raises(InvalidField):
        Statement.parse(broken)


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.none())))
def test_anything_but_an_object_is_refused(value: object) -> None:
    """A statement is a JSON object."""
    with pytest.raises(InvalidField):
        Statement.parse(value)


@pytest.mark.parametrize("kind", sorted(DETAILS))
def test_details_are_those_of_the_kind(kind: str) -> None:
    """A detail too many or too few is refused, so that no part of a statement goes unread."""
    value = made(kind).to_dict()
    for details in ({}, {**value["details"], "more": "x"}):
        with pytest.raises(InvalidField):
            Statement.parse({**value, "details": details})
    assert set(KINDS[kind].details) == set(DETAILS[kind])


@given(st.lists(times, min_size=1, max_size=6), st.randoms())
def test_the_latest_statement_counts_in_any_order(at: list[int], random: Any) -> None:
    """An older statement that is shown again has no effect."""
    statements = [made("role", at_ms) for at_ms in at] + [made("revocation", MAX_TIME_MS)]
    random.shuffle(statements)
    found = newest(statements, "role", SUBJECT)
    assert found is not None
    assert found.at_ms == max(at)
    assert newest(statements, "role", OTHER_MESH) is None


@pytest.mark.parametrize(("by", "of"), list(itertools.product(ROLES, ROLES)))
@pytest.mark.parametrize("other_owners", [0, 1])
@pytest.mark.parametrize("force", [False, True])
def test_authority_to_revoke(by: Role, of: Role, other_owners: int, force: bool) -> None:
    """Owners over all, admins over admins and members, and the last owner only by force."""
    refusal = judge_revocation(by, of, other_owners=other_owners, force=force)
    if RANK[by] < max(1, RANK[of]):
        assert refusal is not None
        assert refusal.code == "not_authorized"
    elif of == "owner" and other_owners == 0 and not force:
        assert refusal is not None
        assert refusal.code == "last_owner"
    else:
        assert refusal is None


@pytest.mark.parametrize(("by", "of", "to"), list(itertools.product(ROLES, ROLES, ROLES)))
@pytest.mark.parametrize("other_owners", [0, 1])
@pytest.mark.parametrize("force", [False, True])
def test_authority_to_give_a_role(by: Role, of: Role, to: Role, other_owners: int, force: bool) -> None:
    """No role above the giver's, no change of a higher one, and the last owner stays one."""
    refusal = judge_role(by, of, to, other_owners=other_owners, force=force)
    if RANK[by] < max(1, RANK[of], RANK[to]):
        assert refusal is not None
        assert refusal.code == "not_authorized"
    elif of == "owner" and to != "owner" and other_owners == 0 and not force:
        assert refusal is not None
        assert refusal.code == "last_owner"
    else:
        assert refusal is None
        assert may_state(by, of, to)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("other_owners", [0, 1])
@pytest.mark.parametrize("force", [False, True])
def test_authority_to_leave(role: Role, other_owners: int, force: bool) -> None:
    """Every member may leave but the last owner, which has to insist."""
    refusal = judge_leave(role, other_owners=other_owners, force=force)
    is_held = role == "owner" and other_owners == 0 and not force
    assert (refusal is not None) == is_held
    assert refusal is None or refusal.code == "last_owner"


def test_an_unknown_role_has_no_authority() -> None:
    """Roles that a later release may bring are not trusted with anything."""
    assert not may_state("captain", "member")
    assert not may_state("owner", "captain")
    assert not may_state("owner", "member", "captain")
