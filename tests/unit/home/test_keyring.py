"""Keys of this host's member: read, created, and replaced in an order that survives a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.inbox.verify import Invalid, Verifier
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destinations
from claudemesh.daemon.outbox.request import parse_send
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.frames import Deliver, DeliverySender
from claudemesh.protocol.signing import verify_envelope
from claudemesh.runtime.exits import ExitWith
from tests.support.daemon import (
    MESH_ID,
    NOW,
    KeyOfEachTopic,
    Person,
    directory_of,
    keyring_of,
    new_ulid,
    person,
    sealed,
)

ALICE, BOB = person("alice"), person("bob")


def made(folder: Path) -> Keyring:
    return Keyring.create(folder / "keypair.json", os.urandom, f"k_{new_ulid()}")


def test_created_keys_are_on_the_disk_for_their_owner_alone(tmp_path: Path) -> None:
    keyring = made(tmp_path)
    path = tmp_path / "keypair.json"
    assert Keyring.load(path).current == keyring.current
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ExitWith, match="restore them from a backup"):
        Keyring.load(tmp_path / "keypair.json")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "keypair.json"
    keyring = made(tmp_path)
    secret = keyring.current.ed25519_seed.hex()
    path.write_text(path.read_text().replace(keyring.current.x25519_pubkey, "0" * 64))
    with pytest.raises(ExitWith, match="x25519_pubkey") as caught:
        Keyring.load(path)
    assert secret not in caught.value.message


def test_installed_keys_are_read_by_the_next_start_and_by_this_one(tmp_path: Path) -> None:
    keyring = made(tmp_path)
    new = person("alice").identity
    keyring.install(new)
    assert keyring.current == new
    assert keyring.announced()["ed25519_pubkey"] == keyring.pubkey == new.ed25519_pubkey
    assert Keyring.load(tmp_path / "keypair.json").current == new


def test_an_installation_that_fails_on_the_disk_changes_nothing(tmp_path: Path) -> None:
    """The file comes first: memory never holds keys that a restart would not find."""
    folder = tmp_path / "mesh"
    folder.mkdir(mode=0o700)
    keyring = made(folder)
    old = keyring.current
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        keyring.install(person("alice").identity)
    assert keyring.current == old
    assert Keyring.load(tmp_path / "away" / "keypair.json").current == old


def test_the_shared_key_of_a_peer_follows_the_installed_keys(tmp_path: Path) -> None:
    keyring = made(tmp_path)
    before = keyring.shared(BOB.identity.x25519_pubkey)
    keyring.install(ALICE.identity)
    after = keyring.shared(BOB.identity.x25519_pubkey)
    assert before != after == keyring_of(BOB.identity).shared(ALICE.identity.x25519_pubkey)


async def test_sealer_and_verifier_go_by_keys_that_are_installed_later(tmp_path: Path) -> None:
    """Neither keeps the keys of its start: the next send is signed, and the next dm is opened, by the new."""
    keyring = made(tmp_path)
    verifier = Verifier(
        keyring, MESH_ID, "demo", new_ulid, 1 << 20, lambda kind, topic, **_: (), KeyOfEachTopic()
    )
    sealer = Sealer(keyring, MESH_ID, os.urandom, BodyLimit(), KeyOfEachTopic())
    keyring.install(ALICE.identity)

    request = parse_send({"to": "bob", "message": "hello"})
    to = Destinations(directory_of(tmp_path, BOB)).resolve(request.target)
    sent = sealer.seal(request, to, (), new_ulid())
    assert verify_envelope(ALICE.identity.ed25519_pubkey, MESH_ID, sent.signed_part(), sent.signature)

    directory = directory_of(tmp_path, ALICE, BOB)
    bob = directory.by_name("bob")
    assert bob is not None
    row = await verifier.open(_from(BOB, _sealed(BOB, directory_of(tmp_path, ALICE))), bob, NOW)
    assert not isinstance(row, Invalid)
    assert row.body == "for alice"


def _sealed(sender: Person, directory: Directory) -> Envelope:
    request = parse_send({"to": "alice", "message": "for alice"})
    return sealed(sender, directory, request, new_ulid())


def _from(sender: Person, envelope: Envelope) -> Deliver:
    one = DeliverySender(sender.member_id, sender.name, sender.identity.ed25519_pubkey)
    return Deliver(1, new_ulid(), 1, one, NOW, envelope.to_dict())
