"""Statements of a move: the daemon follows genuine ones of owners, in their order, and no others."""

from __future__ import annotations

import pytest

from claudemesh.daemon.address import Move
from claudemesh.daemon.identity.peer import ACTIVE, Peer
from claudemesh.daemon.moving import judge
from claudemesh.protocol.statements import MOVE, REVOCATION, Statement, sign_statement
from tests.support.daemon import MESH_ID, person
from tests.support.values import replace

ADA = person("ada")
URL, TO = "ws://old.lan:7900", "wss://mesh.example.org"
OTHER_MESH = MESH_ID[:-1] + "2"


def known(**changes: str) -> Peer:
    """Ada as this host has pinned her: an active owner."""
    keys = ADA.identity
    owner = Peer(
        ADA.member_id,
        "ada",
        keys.ed25519_pubkey,
        keys.x25519_pubkey,
        keys.key_id,
        role="owner",
        status=ACTIVE,
    )
    return replace(owner, **changes)  # type: ignore[arg-type]


def signed(at_ms: int = 10, to: str = TO, mesh_id: str = MESH_ID) -> Statement:
    """A move that Ada has signed."""
    details = {"from": URL, "to": to}
    return sign_statement(ADA.identity, MOVE, mesh_id=mesh_id, subject=mesh_id, at_ms=at_ms, **details)


def verdict(
    statement: Statement, signer: Peer | None = None, url: str = URL, moved_at_ms: int = 9
) -> Move | str | None:
    """Judge a statement on a host of the mesh."""
    return judge(
        statement, mesh_id=MESH_ID, url=url, moved_at_ms=moved_at_ms, signer=signer if signer else known()
    )


def test_a_genuine_statement_of_an_owner_is_followed() -> None:
    """To the address in it."""
    assert verdict(signed()) == Move(TO, 10)


@pytest.mark.parametrize("at_ms", [8, 9])
def test_a_replayed_or_older_statement_is_ignored(at_ms: int) -> None:
    """The last one that was followed counts, although an older one is shown again."""
    assert verdict(signed(at_ms)) is None


def test_a_changed_statement_is_refused() -> None:
    """Its time, its address, or its mesh: the signature covers all."""
    genuine = signed()
    later = replace(genuine, at_ms=11)
    elsewhere = replace(genuine, details=(("from", URL), ("to", "wss://mallory.example")))
    for changed in (later, elsewhere, replace(genuine, signature=bytes(64)), signed(mesh_id=OTHER_MESH)):
        assert "not a genuine statement" in str(verdict(changed))


def test_a_statement_of_another_kind_is_no_move() -> None:
    """Although an owner has signed it."""
    other = sign_statement(
        ADA.identity,
        REVOCATION,
        mesh_id=MESH_ID,
        subject=ADA.member_id,
        at_ms=10,
        pubkey=ADA.identity.ed25519_pubkey,
    )
    assert "not a genuine statement" in str(verdict(other))


@pytest.mark.parametrize("changes", [{"role": "admin"}, {"role": "member"}, {"status": "revoked"}])
def test_only_an_active_owner_moves_the_mesh(changes: dict[str, str]) -> None:
    """No admin, no member, and no owner that was revoked."""
    assert "not an owner" in str(verdict(signed(), known(**changes)))


def test_a_host_that_dials_the_address_already_has_no_objection() -> None:
    """An owner that has rotated its keys, or left, leaves no warning behind."""
    assert verdict(signed(), known(role="member"), url=TO) is None
    assert verdict(signed(), url=TO) == Move(TO, 10)


def test_a_key_that_an_owner_has_rotated_out_moves_nothing() -> None:
    """It may have been rotated because it was stolen."""
    assert "not an owner" in str(verdict(signed(), known(pubkey="ab" * 32)))


def test_an_unknown_signer_moves_nothing() -> None:
    """The key has to be pinned here."""
    unknown = judge(signed(), mesh_id=MESH_ID, url=URL, moved_at_ms=0, signer=None)
    assert "not an owner of the mesh whose key this host knows" in str(unknown)


def test_a_move_to_a_less_safe_or_useless_address_is_refused() -> None:
    """From encrypted to not encrypted, and to the loopback; between hosts of one kind it is followed."""
    assert "unencrypted" in str(verdict(signed(to="ws://new.lan"), url=TO))
    assert "this machine itself" in str(verdict(signed(to="wss://127.0.0.1:1")))
    assert verdict(signed(to="ws://127.0.0.1:1"), url="ws://localhost:2") == Move("ws://127.0.0.1:1", 10)
