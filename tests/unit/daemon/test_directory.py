"""The directory: pinned keys, names without regard to case, departed members kept (protocol.md, Envelope)."""

from __future__ import annotations

import json
from pathlib import Path

from claudemesh.daemon.identity.directory import Directory
from tests.support.daemon import directory_of, person

ALICE, BOB = person("alice"), person("Bob")
MALLORY = person("mallory")


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
    assert directory.refused == 2


def test_a_sealing_key_that_its_owner_did_not_sign_is_refused(tmp_path: Path) -> None:
    """Otherwise the broker could read what is sealed to it."""
    directory = Directory(tmp_path / "peers.json")
    assert not directory.apply([BOB.listed(x25519_pubkey=MALLORY.identity.x25519_pubkey)])
    assert directory.by_name("bob") is None


def test_the_departed_are_kept_but_not_listed(tmp_path: Path) -> None:
    """A retry to somebody who has left is still recognised."""
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
    again = Directory(tmp_path / "peers.json")
    again.load()
    assert again.peers() == directory.peers()
    assert not again.apply([ALICE.listed(), BOB.listed()])


def test_a_moment_that_is_none_in_a_kept_list_is_left_out(tmp_path: Path) -> None:
    """Versions that read the broker's list without a schema have kept such a file."""
    directory_of(tmp_path, ALICE).save()
    path = tmp_path / "peers.json"
    kept = json.loads(path.read_text())
    kept["peers"][0]["last_seen_at"] = {}
    path.write_text(json.dumps(kept))
    again = Directory(path)
    again.load()
    assert [peer.last_seen_at for peer in again.peers()] == [None]
