"""Keys of topics on disk: what is added is read again, and a malformed file is moved aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.home.topic_keyring import MAX_EPOCHS, HeldKey, TopicKeyring
from claudemesh.protocol.topic_keys import TopicKey, sign_epoch
from tests.support.daemon import MESH_ID, person

ALICE = person("alice")


def held(topic: str, key_epoch: int) -> HeldKey:
    """A key that alice has made."""
    key = TopicKey(topic, key_epoch, key_epoch.to_bytes(32, "big"))
    return HeldKey(key, sign_epoch(ALICE.identity, MESH_ID, key, ""))


def test_keys_are_read_again(tmp_path: Path) -> None:
    """With the statement of their maker; the file is private."""
    path = tmp_path / "topic_keys.json"
    keyring = TopicKeyring.load(path, MESH_ID, 1)
    for one in (held("news", 1), held("news", 2), held("work", 1)):
        keyring.add(one)
    assert path.stat().st_mode & 0o777 == 0o600
    again = TopicKeyring.load(path, MESH_ID, 1)
    assert again.find("news", 1) == held("news", 1)
    assert again.newest("news") == held("news", 2)
    assert sorted(again.topics) == ["news", "work"]


def test_the_oldest_epochs_beyond_the_bound_are_removed(tmp_path: Path) -> None:
    """Of this topic alone."""
    keyring = TopicKeyring.load(tmp_path / "topic_keys.json", MESH_ID, 1)
    keyring.add(held("work", 1))
    for number in range(1, MAX_EPOCHS + 3):
        keyring.add(held("news", number))
    assert keyring.find("news", 2) is None
    assert keyring.find("news", 3) is not None
    assert keyring.find("work", 1) is not None


@pytest.mark.parametrize("flip", [b"{", b'"schema_version":1', b'"key":"', b'"commitment":"'])
def test_a_malformed_file_is_moved_aside(tmp_path: Path, flip: bytes) -> None:
    """Its keys come again by their wraps; a key that does not match its commitment is not used."""
    path = tmp_path / "topic_keys.json"
    keyring = TopicKeyring.load(path, MESH_ID, 1)
    keyring.add(held("news", 1))
    raw = path.read_bytes()
    place = raw.index(flip) + len(flip)
    path.write_bytes(raw[:place] + (b"1" if raw[place : place + 1] != b"1" else b"2") + raw[place + 1 :])
    again = TopicKeyring.load(path, MESH_ID, 7)
    assert again.newest("news") is None
    assert (tmp_path / "topic_keys.json.malformed-7").exists()
