"""Directory: pinned keys, names, departed members (docs/spec/daemon.md, Directory and pins)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.pins import Inviter, inviter_of
from claudemesh.home.membership import Membership
from claudemesh.protocol.invites import Introduction, sign_invite
from claudemesh.protocol.rotation import Rotation, make_rotation
from claudemesh.runtime.conditions import Conditions
from tests.support.clock import ManualClock
from tests.support.daemon import MESH_ID, Person, directory_of, new_ulid, person
from tests.support.values import replace

ALICE, BOB = person("alice"), person("Bob")
MALLORY = person("mallory")


def rotated(one: Person) -> tuple[Person, Rotation]:
    """The same member with new keys, and the statement by which the old one passed to them."""
    new = replace(one, identity=person(one.name).identity)
    return new, make_rotation(one.identity, new.identity, mesh_id=MESH_ID, rotated_at_ms=1)


def test_names_are_found_without_regard_to_case_and_keys_exactly(tmp_path: Path) -> None:
    """A name is unique in the mesh without regard to case."""
    directory = directory_of(tmp_path, ALICE, BOB)
    found = directory.by_name("BOB")
    assert found is not None
    assert found.member_id == BOB.member_id
    assert directory.by_key(BOB.identity.ed25519_pubkey) == found
    assert directory.by_name("nobody") is None


def test_another_key_for_a_pinned_name_is_refused(tmp_path: Path) -> None:
    """As ssh does with hosts: the first key seen stays; the change is counted."""
    directory = directory_of(tmp_path, ALICE, BOB)
    assert not directory.apply([MALLORY.listed(name="bob")])
    assert not directory.apply([MALLORY.listed(name="Bob", member_id=BOB.member_id)])
    found = directory.by_name("bob")
    assert found is not None
    assert found.pubkey == BOB.identity.ed25519_pubkey
    assert directory.refusals.total == 2


def test_a_sealing_key_that_its_owner_did_not_sign_is_refused(tmp_path: Path) -> None:
    """Otherwise the broker could read what is sealed to it."""
    directory = Directory(tmp_path / "peers.json", MESH_ID)
    assert not directory.apply([BOB.listed(x25519_pubkey=MALLORY.identity.x25519_pubkey)])
    assert directory.by_name("bob") is None


def test_the_departed_are_kept_but_not_listed(tmp_path: Path) -> None:
    """A retry to a member that has left is still recognised."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.apply([BOB.listed(status="left")])
    assert [peer.name for peer in directory.peers()] == ["alice"]
    assert directory.by_name("bob") is not None
    assert directory.near("Bobb") == []
    assert directory.near("alic") == ["alice"]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """peers.json holds the directory as last seen."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.save()
    again = Directory(tmp_path / "peers.json", MESH_ID)
    again.load()
    assert again.peers() == directory.peers()
    assert not again.apply([ALICE.listed(), BOB.listed()])


def test_a_key_that_the_broker_only_claims_for_a_member_is_nobodys(tmp_path: Path) -> None:
    """A dm to that key would be sealed to whom the broker likes; the entry without the claim is good."""
    directory = Directory(tmp_path / "peers.json", MESH_ID)
    stranger = person("stranger").identity.ed25519_pubkey
    assert directory.apply([MALLORY.listed(earlier_keys=[stranger])])
    assert directory.by_key(stranger) is None
    assert directory.by_name("mallory") is not None
    assert directory.unproven == 1


def test_a_chain_that_the_older_key_signed_leads_to_the_member(tmp_path: Path) -> None:
    """Also for a host that was away during both changes, and after a restart of the daemon."""
    directory = directory_of(tmp_path, ALICE, BOB)
    second, first_statement = rotated(BOB)
    third, second_statement = rotated(second)
    chain = [first_statement.to_dict(), second_statement.to_dict()]
    assert directory.apply([third.listed(rotations=chain)])
    # A list without the statements takes nothing back.
    assert not directory.apply([third.listed()])
    directory.save()
    again = Directory(tmp_path / "peers.json", MESH_ID)
    again.load()
    for known in (directory, again):
        for key in (one.identity.ed25519_pubkey for one in (BOB, second, third)):
            found = known.by_key(key)
            assert found is not None
            assert found.pubkey == third.identity.ed25519_pubkey
    # The broker cannot go back to a key that was signed over. It may have been restored, so that is no lie.
    assert not again.apply([BOB.listed()])
    assert again.refusals.of("bob") is None
    assert again.lists_older_keys
    found = again.by_name("bob")
    assert found is not None
    assert found.pubkey == third.identity.ed25519_pubkey
    again.apply([third.listed(rotations=chain)])
    assert not again.lists_older_keys


def test_a_chain_that_the_pinned_key_did_not_sign_is_refused(tmp_path: Path) -> None:
    """Signed by another key, for another mesh, for other keys, or cut before the pinned key."""
    second, statement = rotated(BOB)
    third, later = rotated(second)
    elsewhere = make_rotation(BOB.identity, second.identity, mesh_id="another-mesh", rotated_at_ms=1)
    by_mallory = replace(
        make_rotation(MALLORY.identity, second.identity, mesh_id=MESH_ID, rotated_at_ms=1),
        old_pubkey=BOB.identity.ed25519_pubkey,
    )
    other_box = replace(statement, x25519_pubkey=MALLORY.identity.x25519_pubkey)
    lies = [second.listed(rotations=[one.to_dict()]) for one in (elsewhere, by_mallory, other_box)]
    for lie in (*lies, third.listed(rotations=[later.to_dict()]), second.listed()):
        directory = directory_of(tmp_path, ALICE, BOB)
        assert not directory.apply([lie])
        found = directory.by_name("bob")
        assert found is not None
        assert found.pubkey == BOB.identity.ed25519_pubkey
        refusal = directory.refusals.of("bob")
        assert refusal is not None
        assert (refusal.reason, refusal.error().status) == ("key_changed", 409)


def test_earlier_keys_in_a_file_of_an_older_version_were_never_proven(tmp_path: Path) -> None:
    """The file is read; what the broker had claimed is dropped."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.save()
    path = tmp_path / "peers.json"
    stranger = person("stranger").identity.ed25519_pubkey
    path.write_text(path.read_text().replace('"earlier_keys":[]', f'"earlier_keys":["{stranger}"]'))
    again = Directory(path, MESH_ID)
    again.load()
    assert again.by_key(stranger) is None
    assert [peer.name for peer in again.peers()] == ["alice", "Bob"]


def test_a_key_of_each_kind_is_one_members(tmp_path: Path) -> None:
    """The first one stays, whichever key another entry repeats, and is not affected."""
    boxes = replace(
        MALLORY.identity, x25519_privkey=BOB.identity.x25519_privkey, x25519_pubkey=BOB.identity.x25519_pubkey
    )
    binding = b"claudemesh-x25519-v1\0%b\0%b" % (
        boxes.ed25519_pubkey.encode(),
        boxes.x25519_pubkey.encode(),
    )
    thief = replace(MALLORY, identity=replace(boxes, x25519_signature=MALLORY.identity.sign(binding)))
    twin = replace(BOB, name="twin", member_id=MALLORY.member_id)
    for lie, reason in ((thief, "sealing_key_taken"), (twin, "key_taken")):
        directory = directory_of(tmp_path, ALICE, BOB)
        assert not directory.apply([lie.listed()])
        assert directory.by_name(lie.name) is None
        refusal = directory.refusals.of(lie.name)
        assert refusal is not None
        assert refusal.reason == reason
        found = directory.by_key(BOB.identity.ed25519_pubkey)
        assert found is not None
        assert found.name == "Bob"


def test_of_two_members_with_one_key_in_a_kept_file_the_first_has_it(tmp_path: Path) -> None:
    """An older version let two have it. Of the second nothing is taken over until the whole list came."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.note_version("7")
    directory.save()
    path = tmp_path / "peers.json"
    kept = json.loads(path.read_text())
    kept["peers"].append(kept["peers"][1] | {"member_id": MALLORY.member_id, "name": "mallory"})
    path.write_text(json.dumps(kept))
    again = Directory(path, MESH_ID)
    again.load()
    found = again.by_key(BOB.identity.ed25519_pubkey)
    assert found is not None
    assert found.name == "Bob"
    assert again.by_id(MALLORY.member_id) is None
    assert again.version is None
    again.apply([replace(BOB, name="mallory", member_id=MALLORY.member_id).listed(), BOB.listed()])
    assert again.refusals.of("bob") is None
    assert again.refusals.of("mallory") is not None


def membership(*, named: bool, signer: Person = ALICE) -> Membership:
    """The membership of a host that alice invited."""
    link = sign_invite(
        signer.identity,
        broker_url="ws://127.0.0.1:7900",
        mesh_id=MESH_ID,
        slug="demo",
        invite_id=new_ulid(),
        role="member",
        expires_at_ms=2**47,
        uses=1,
        inviter=(signer.name, signer.member_id) if named else None,
    ).to_link()
    key = ALICE.identity.ed25519_pubkey
    return Membership(MESH_ID, "demo", "ws://127.0.0.1:7900", BOB.member_id, "Bob", "member", key, link)


@pytest.mark.parametrize("lie", [{"name": "other"}, {"member_id": MALLORY.member_id}], ids=str)
def test_the_inviter_is_pinned_before_the_first_list(tmp_path: Path, lie: dict[str, str]) -> None:
    """Neither its member id nor its name is shown with another key, on a host that has no list yet."""
    directory = Directory(tmp_path / "peers.json", MESH_ID, inviter_of(membership(named=True)))
    conditions = Conditions(ManualClock())
    assert directory.apply([BOB.listed()])
    shown = {"name": "alice", "member_id": ALICE.member_id} | lie
    assert not directory.apply([MALLORY.listed(**shown)])
    directory.show(conditions)
    assert conditions.holds("directory_refused")
    assert conditions.holds("inviter_unlisted")
    assert directory.apply([ALICE.listed()])
    directory.apply([BOB.listed(), ALICE.listed()])
    directory.show(conditions)
    assert not conditions.holds("inviter_unlisted")


def test_an_entry_that_only_the_missing_inviter_made_doubtful_is_taken_afterwards(tmp_path: Path) -> None:
    """The inviter has another name now, and a newcomer its old one: in whichever order they are listed."""
    directory = Directory(tmp_path / "peers.json", MESH_ID, inviter_of(membership(named=True)))
    newcomer = replace(MALLORY, name="alice")
    assert directory.apply([newcomer.listed(), ALICE.listed(name="alicia")])
    found = directory.by_name("alice")
    assert found is not None
    assert found.member_id == MALLORY.member_id
    assert directory.refusals.message() is None


def test_an_invite_without_a_name_still_pins_the_key(tmp_path: Path) -> None:
    """An introduction that another key signed is ignored."""
    assert inviter_of(membership(named=False)) == Inviter(ALICE.identity.ed25519_pubkey)
    assert inviter_of(membership(named=True, signer=MALLORY)) == Inviter(ALICE.identity.ed25519_pubkey)
    introduced = inviter_of(membership(named=True))
    assert introduced is not None
    assert isinstance(introduced.introduction, Introduction)
    directory = Directory(tmp_path / "peers.json", MESH_ID, inviter_of(membership(named=False)))
    conditions = Conditions(ManualClock())
    directory.apply([BOB.listed(), MALLORY.listed()])
    directory.show(conditions)
    [shown] = conditions.items()
    assert shown["code"] == "inviter_unlisted"
    assert ALICE.identity.ed25519_pubkey in shown["message"]
    directory.apply([ALICE.listed()])
    directory.show(conditions)
    assert not conditions.items()


def test_a_refusal_is_told_once_and_ends_when_the_list_is_right_again(tmp_path: Path) -> None:
    """Each list repeats it; only the count grows."""
    told: list[str] = []
    directory = Directory(tmp_path / "peers.json", MESH_ID, on_refused=told.append)
    directory.apply([ALICE.listed(), BOB.listed()])
    for _ in range(3):
        directory.apply([MALLORY.listed(name="bob")])
    assert (told, directory.refusals.total) == (["name_rebound"], 3)
    assert directory.refusals.of("BOB") is not None
    directory.apply([BOB.listed()])
    assert directory.refusals.of("bob") is None


def test_a_moment_that_is_none_in_a_kept_list_is_left_out(tmp_path: Path) -> None:
    """Versions that read the broker's list without a schema have kept such a file."""
    directory_of(tmp_path, ALICE).save()
    path = tmp_path / "peers.json"
    kept = json.loads(path.read_text())
    kept["peers"][0]["last_seen_at"] = {}
    path.write_text(json.dumps(kept))
    again = Directory(path, MESH_ID)
    again.load()
    assert [peer.last_seen_at for peer in again.peers()] == [None]
