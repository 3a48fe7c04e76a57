"""A lying broker cannot use a rotation of keys to have other keys pinned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol.rotation import Rotation, make_rotation
from tests.support.daemon import MESH_ID, Person, directory_of, person
from tests.support.values import replace

ALICE, BOB = person("alice"), person("bob")
NEWER, STOLEN = (replace(person("bob"), member_id=BOB.member_id) for _ in range(2))


def rotation(old: Person, new: Person) -> dict[str, Any]:
    """Return the statement from one pair of keys to another, as a broker lists it."""
    made = make_rotation(old.identity, new.identity, mesh_id=MESH_ID, rotated_at_ms=1)
    return made.with_older_key(old.identity.x25519_pubkey, old.identity.x25519_signature).to_dict()


def listed(one: Person, *rotations: dict[str, Any]) -> Any:
    """Return a member's entry with its statements."""
    earlier = [statement["old_pubkey"] for statement in rotations]
    return one.listed(earlier_keys=earlier, rotations=list(rotations))


def pinned(directory: Directory) -> str:
    """Return the key under which bob is pinned."""
    peer = directory.by_id(BOB.member_id)
    assert peer is not None
    return peer.pubkey


def test_a_rotation_is_followed_by_its_statement(tmp_path: Path) -> None:
    """The older x25519 key stays this member's, also after a restart."""
    directory = directory_of(tmp_path, ALICE, BOB)
    assert directory.apply([listed(NEWER, rotation(BOB, NEWER))])
    assert pinned(directory) == NEWER.identity.ed25519_pubkey
    directory.save()
    again = Directory(tmp_path / "peers.json", MESH_ID)
    again.load()
    peer = again.by_id(BOB.member_id)
    assert peer is not None
    assert peer.sealing_key_of(BOB.identity.ed25519_pubkey) == BOB.identity.x25519_pubkey
    thief = replace(person("eve"), identity=replace(person("eve").identity))
    taken = thief.listed(x25519_pubkey=BOB.identity.x25519_pubkey)
    again.apply([taken])
    assert again.by_id(thief.member_id) is None


def test_a_broker_that_hides_a_statement_gets_no_other_key_pinned(tmp_path: Path) -> None:
    """Without the statement the newer key is any key: refused, and the older one stays."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.apply([listed(NEWER)])
    assert pinned(directory) == BOB.identity.ed25519_pubkey
    directory.apply([listed(NEWER, rotation(BOB, NEWER))])
    assert pinned(directory) == NEWER.identity.ed25519_pubkey


def test_a_broker_that_goes_back_to_the_older_key_is_not_followed(tmp_path: Path) -> None:
    """Also when another key has been rotated to from there: a thief of the older key gets nowhere."""
    directory = directory_of(tmp_path, ALICE, BOB)
    directory.apply([listed(NEWER, rotation(BOB, NEWER))])
    directory.apply([listed(BOB)])
    assert pinned(directory) == NEWER.identity.ed25519_pubkey
    directory.apply([listed(STOLEN, rotation(BOB, STOLEN))])
    assert pinned(directory) == NEWER.identity.ed25519_pubkey


def test_an_older_sealing_key_that_its_owner_has_not_signed_is_not_used(tmp_path: Path) -> None:
    """The statement counts all the same."""
    directory = directory_of(tmp_path, ALICE, BOB)
    false = rotation(BOB, NEWER) | {"old_x25519_pubkey": STOLEN.identity.x25519_pubkey}
    directory.apply([listed(NEWER, false)])
    peer = directory.by_id(BOB.member_id)
    assert peer is not None
    assert peer.pubkey == NEWER.identity.ed25519_pubkey
    assert peer.sealing_key_of(BOB.identity.ed25519_pubkey) == ""
    assert Rotation.parse(false).verify(MESH_ID)
