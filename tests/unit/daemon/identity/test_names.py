"""Pins of names, and statements about members (docs/spec/daemon.md, Directory and pins)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.identity.verifying import PeerVerification
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.rotation import make_rotation
from claudemesh.protocol.statements import Statement, sign_statement
from tests.support.daemon import MESH_ID, NOW, Person, directory_of, keyring_of, new_ulid, person
from tests.support.values import replace

ALICE, BOB, SECOND, ADMIN = person("alice"), person("bob"), person("bob"), person("admin")
OTHER_MESH = "01899e2d-0000-7000-8000-000000000002"


def stated(
    by: Person, kind: str, subject: Person, *, mesh_id: str = MESH_ID, at_ms: int = NOW, **details: str
) -> Statement:
    return sign_statement(
        by.identity, kind, mesh_id=mesh_id, subject=subject.member_id, at_ms=at_ms, **details
    )


def revoked(subject: Person, by: Person = ADMIN, **changes: Any) -> Statement:
    return stated(by, "revocation", subject, pubkey=subject.identity.ed25519_pubkey, **changes)


def replacing(subject: Person, by: Person = ADMIN, name: str = "bob", **changes: Any) -> Statement:
    return stated(by, "replacement", subject, name=name, invite_id=new_ulid(), **changes)


def known(folder: Path, *more: Person) -> Directory:
    """A directory with an admin, alice and bob."""
    directory = directory_of(folder, ALICE, BOB, *more)
    directory.apply([ADMIN.listed(role="admin")])
    directory.take_news()
    return directory


def sends_to(directory: Directory, name: str) -> str:
    """The member id to which a send to a name goes, or the code of its refusal."""
    try:
        peer = directory.resolve(name=name, key=None)
        directory.check_open(peer, name)
    except ProtocolError as error:
        return error.code
    return peer.member_id


def reloaded(directory: Directory, folder: Path) -> Directory:
    directory.save()
    again = Directory(folder / "peers.json", MESH_ID)
    again.load()
    return again


def one(directory: Directory, who: Person) -> Peer:
    peer = directory.by_id(who.member_id)
    assert peer is not None
    return peer


@pytest.mark.parametrize("end", ["left", "revoked", "renamed"])
def test_a_released_name_that_another_member_takes_is_refused_until_it_is_accepted(
    tmp_path: Path, end: str
) -> None:
    """A send to the name is 409 with both keys; sends by key are not affected."""
    directory = known(tmp_path)
    if end == "left":
        directory.gone([BOB.member_id])
    else:
        changes = {"name": "robert"} if end == "renamed" else {"status": "revoked"}
        assert directory.apply([BOB.listed(**changes)])
    assert directory.apply([SECOND.listed()])
    assert directory.refusals.total == 0
    for each in (directory, reloaded(directory, tmp_path)):
        with pytest.raises(ProtocolError) as refusal:
            each.check_open(each.resolve(name="BOB", key=None), "BOB")
        assert (refusal.value.code, refusal.value.status) == ("name_rebound", 409)
        for key in (BOB.identity.ed25519_pubkey, SECOND.identity.ed25519_pubkey):
            assert key in refusal.value.message
        assert "claudemesh peers accept BOB" in refusal.value.message
        by_key = each.resolve(name=None, key=SECOND.identity.ed25519_pubkey)
        each.check_open(by_key, None)
        assert by_key.member_id == SECOND.member_id
    assert directory.accept_name("Bob").member_id == SECOND.member_id
    [change] = [one for one in directory.take_news() if one.event == "member_replaced"]
    assert change.data["old_member_id"] == BOB.member_id
    for each in (directory, reloaded(directory, tmp_path)):
        assert sends_to(each, "bob") == SECOND.member_id
        with pytest.raises(ProtocolError, match="nothing to accept"):
            each.accept_name("bob")


async def test_keys_of_a_member_that_has_gone_are_not_compared(tmp_path: Path) -> None:
    """Neither under its name, nor under its key, nor for the member that has its name now."""
    directory = known(tmp_path)
    kept = {"keyring": keyring_of(ALICE.identity), "directory": directory, "sync": None}
    verification = PeerVerification(mesh_id=MESH_ID, own_id=ALICE.member_id, **kept)  # type: ignore[arg-type]
    peer, digits = await verification.string_for("bob")
    assert (peer.member_id, digits.replace(" ", "").isdigit()) == (BOB.member_id, True)
    assert directory.apply([BOB.listed(status="revoked")])
    for wanted in ("bob", BOB.identity.ed25519_pubkey):
        with pytest.raises(ProtocolError, match="bob was revoked"):
            await verification.string_for(wanted)
    assert directory.apply([SECOND.listed()])
    with pytest.raises(ProtocolError) as refusal:
        await verification.string_for("bob")
    assert refusal.value.code == "name_rebound"


def test_a_member_with_the_name_of_one_that_still_has_it_is_refused(tmp_path: Path) -> None:
    """A broker that lists two members under one name is not believed, and there is nothing to accept."""
    directory = known(tmp_path)
    assert not directory.apply([SECOND.listed()])
    assert sends_to(directory, "bob") == "name_rebound"
    with pytest.raises(ProtocolError, match="nothing to accept"):
        directory.accept_name("bob")


def test_a_send_to_the_name_before_a_rename_names_the_present_one(tmp_path: Path) -> None:
    """The name is free, and it still leads to no other member."""
    directory = known(tmp_path)
    assert directory.apply([BOB.listed(name="robert")])
    [change] = directory.take_news()
    assert (change.event, change.data["old_name"], change.data["name"]) == (
        "member_renamed",
        "bob",
        "robert",
    )
    with pytest.raises(ProtocolError, match="robert"):
        directory.check_open(directory.resolve(name="bob", key=None), "bob")
    assert sends_to(directory, "robert") == BOB.member_id
    assert [peer.name for peer in directory.peers()] == ["admin", "alice", "robert"]


def test_ephemeral_members_are_never_pinned_by_name(tmp_path: Path) -> None:
    """A thousand CI members may have one name, one after the other."""
    directory = known(tmp_path)
    for _ in range(5):
        runner = person("ci")
        assert directory.apply([runner.listed(ephemeral=True)])
        assert sends_to(directory, "ci") == runner.member_id
        directory.gone([runner.member_id])
    lasting = person("ci")
    directory.apply([lasting.listed()])
    assert sends_to(directory, "ci") == lasting.member_id
    directory.gone([lasting.member_id])
    directory.apply([person("ci").listed(ephemeral=True)])
    assert sends_to(directory, "ci") == "name_rebound"


def test_a_list_that_calls_a_pinned_member_ephemeral_does_not_unpin_it(tmp_path: Path) -> None:
    """Otherwise a broker could let the pin of any name go."""
    directory = known(tmp_path)
    directory.apply([BOB.listed(ephemeral=True)])
    directory.gone([BOB.member_id])
    directory.apply([SECOND.listed()])
    assert sends_to(directory, "bob") == "name_rebound"


@pytest.mark.parametrize("is_away", [False, True])
def test_a_signed_replacement_moves_the_pin(tmp_path: Path, is_away: bool) -> None:
    """Peers follow the statement, also those that were away while the old member left."""
    directory = known(tmp_path)
    if not is_away:
        directory.gone([BOB.member_id])
    statement = replacing(BOB)
    assert directory.apply([SECOND.listed(statements=[statement.to_dict()])])
    [change] = directory.take_news()
    assert (change.event, change.data["signed_by"], change.data["signer_name"]) == (
        "member_replaced",
        ADMIN.identity.ed25519_pubkey,
        "admin",
    )
    for each in (directory, reloaded(directory, tmp_path)):
        assert sends_to(each, "bob") == SECOND.member_id


def test_a_replacement_that_does_not_count_moves_no_pin(tmp_path: Path) -> None:
    """By a member, a stranger, a revoked admin, for another name, subject or mesh, or changed."""
    forged = replace(replacing(BOB, ALICE), signer=ADMIN.identity.ed25519_pubkey)
    lies = [
        replacing(BOB, ALICE),
        replacing(BOB, person("stranger")),
        replacing(BOB, name="alice"),
        replacing(ALICE),
        replacing(BOB, mesh_id=OTHER_MESH),
        forged,
    ]
    for lie in lies:
        directory = known(tmp_path)
        directory.gone([BOB.member_id])
        directory.apply([SECOND.listed(statements=[lie.to_dict()])])
        assert sends_to(directory, "bob") == "name_rebound"
    directory = known(tmp_path)
    directory.apply([ADMIN.listed(role="admin", status="revoked")])
    directory.gone([BOB.member_id])
    directory.apply([SECOND.listed(statements=[replacing(BOB).to_dict()])])
    assert sends_to(directory, "bob") == "name_rebound"


def test_a_statement_is_judged_again_when_its_signer_becomes_known(tmp_path: Path) -> None:
    """A list has its members in any order."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.gone([BOB.member_id])
    entries = [SECOND.listed(statements=[replacing(BOB).to_dict()]), ADMIN.listed(role="admin")]
    assert directory.apply(entries)
    assert sends_to(directory, "bob") == SECOND.member_id


def test_a_revoked_member_stays_revoked_whatever_the_broker_lists(tmp_path: Path) -> None:
    """Active again, left, without the statement, or under keys that the revoked one signed."""
    directory = known(tmp_path)
    assert directory.apply([BOB.listed(statements=[revoked(BOB).to_dict()])])
    [change] = directory.take_news()
    assert (change.event, change.data["revoked_by"]) == (
        "keypair_revoked",
        ADMIN.identity.ed25519_pubkey,
    )
    rotated = replace(BOB, identity=person("bob").identity)
    chain = make_rotation(BOB.identity, rotated.identity, mesh_id=MESH_ID, rotated_at_ms=NOW + 1)
    for each in (directory, reloaded(directory, tmp_path)):
        for listed in (BOB.listed(), rotated.listed(rotations=[chain.to_dict()])):
            each.apply([listed])
            assert one(each, BOB).status == "revoked"
        each.gone([BOB.member_id])
        assert one(each, BOB).status == "revoked"
        assert sends_to(each, "bob") == "destination_not_found"


def test_a_revocation_that_does_not_count_revokes_no_member(tmp_path: Path) -> None:
    """By a member, over an owner by an admin, of another key or mesh, or by a stranger."""
    directory = known(tmp_path)
    directory.apply([ALICE.listed(role="owner")])
    other_key = stated(ADMIN, "revocation", BOB, pubkey=ALICE.identity.ed25519_pubkey)
    lies = [
        (BOB, revoked(BOB, BOB)),
        (BOB, revoked(BOB, person("stranger"))),
        (BOB, revoked(BOB, mesh_id=OTHER_MESH)),
        (BOB, other_key),
        (ALICE, revoked(ALICE)),
    ]
    for subject, lie in lies:
        role = "owner" if subject is ALICE else "member"
        directory.apply([subject.listed(role=role, statements=[lie.to_dict()])])
        assert one(directory, subject).status == "active"
        assert not directory.revoke(lie)


def test_a_revocation_counts_as_an_event_before_the_list_has_it(tmp_path: Path) -> None:
    """The event carries the statement; the list that follows changes nothing."""
    directory = known(tmp_path)
    assert directory.revoke(revoked(BOB))
    assert not directory.revoke(revoked(BOB))
    assert len(directory.take_news()) == 1
    assert not directory.apply([BOB.listed(status="revoked", statements=[revoked(BOB).to_dict()])])


def test_the_latest_role_statement_counts_whatever_the_broker_lists(tmp_path: Path) -> None:
    """An older statement that is shown again, and a list without one, change nothing."""
    directory = known(tmp_path)
    first = stated(ADMIN, "role", BOB, role="admin", at_ms=NOW)
    second = stated(ADMIN, "role", BOB, role="member", at_ms=NOW + 1)
    directory.apply([BOB.listed(role="admin", statements=[first.to_dict()])])
    assert one(directory, BOB).role == "admin"
    directory.apply([BOB.listed(role="member", statements=[second.to_dict()])])
    for each in (directory, reloaded(directory, tmp_path)):
        each.apply([BOB.listed(role="admin", statements=[first.to_dict()])])
        assert one(each, BOB).role == "member"
        each.apply([BOB.listed(role="admin")])
        assert one(each, BOB).role == "member"


def test_a_change_of_a_profile_is_news_and_a_new_member_is_none(tmp_path: Path) -> None:
    """member_updated says how the member is now."""
    directory = directory_of(tmp_path, ALICE)
    assert directory.take_news() == []
    directory.apply([ALICE.listed(summary="builds", presence_status="working")])
    [change] = directory.take_news()
    assert change.event == "member_updated"
    assert (change.data["summary"], change.data["status"], change.data["visible"]) == (
        "builds",
        "working",
        True,
    )


def test_sessions_of_a_member_are_news_and_are_kept(tmp_path: Path) -> None:
    """A daemon that starts again asks for changes only."""
    directory = directory_of(tmp_path, ALICE)
    api = {"name": "api", "client": "codex", "state": "idle", "reach": "turn"}
    directory.apply([ALICE.listed(sessions=[api])])
    [change] = directory.take_news()
    assert (change.event, change.data["sessions"]) == ("member_updated", [api])
    assert one(reloaded(directory, tmp_path), ALICE).sessions == one(directory, ALICE).sessions != ()


def test_a_file_of_an_older_version_pins_every_member_by_its_name(tmp_path: Path) -> None:
    """It knew no other pins."""
    directory = known(tmp_path)
    directory.save()
    path = tmp_path / "peers.json"
    text = path.read_text()
    for name in ("alice", "bob", "admin"):
        text = text.replace(f',"pins":["{name}"]', "").replace(',"ephemeral":false', "")
    assert "pins" not in text
    path.write_text(text)
    again = Directory(path, MESH_ID)
    again.load()
    again.gone([BOB.member_id])
    again.apply([SECOND.listed()])
    assert sends_to(again, "bob") == "name_rebound"
