"""Keys of topics on disk: what is added is read again, and a malformed file is moved aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.home.topic_keyring import MAX_EPOCHS, HeldKey, TopicKeyring
from claudemesh.protocol.topic_keys import TopicKey, sign_epoch
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import UnsafeFile
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


def test_the_oldest_epochs_beyond_the_bound_are_not_on_the_disk(tmp_path: Path) -> None:
    """Of this topic alone. Until the end of the process they still open what has waited for them."""
    keyring = TopicKeyring.load(tmp_path / "topic_keys.json", MESH_ID, 1)
    keyring.add(held("work", 1))
    for number in range(1, MAX_EPOCHS + 3):
        keyring.add(held("news", number))
    assert [keyring.find("news", number) for number in (1, 2, 3)] == [held("news", n) for n in (1, 2, 3)]
    again = TopicKeyring.load(tmp_path / "topic_keys.json", MESH_ID, 1)
    again.add(held("news", 1))
    assert (again.find("news", 1), again.find("news", 2)) == (held("news", 1), None)
    assert again.find("news", 3) is not None
    assert again.find("work", 1) is not None
    assert again.newest("news") == held("news", MAX_EPOCHS + 2)


def test_a_file_of_a_newer_version_is_refused_and_stays(tmp_path: Path) -> None:
    """Moved aside, its keys would be missing when the newer version runs again."""
    path = tmp_path / "topic_keys.json"
    TopicKeyring.load(path, MESH_ID, 1).add(held("news", 1))
    newer = path.read_bytes().replace(b'"schema_version":1', b'"schema_version":2')
    path.write_bytes(newer)
    with pytest.raises(ExitWith) as refused:
        TopicKeyring.load(path, MESH_ID, 1)
    assert (refused.value.code, refused.value.error) == (CONFIGURATION, "schema_too_new")
    assert path.read_bytes() == newer


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Like that of the keypair."""
    path = tmp_path / "topic_keys.json"
    TopicKeyring.load(path, MESH_ID, 1).add(held("news", 1))
    path.chmod(0o644)
    with pytest.raises(UnsafeFile, match="chmod"):
        TopicKeyring.load(path, MESH_ID, 1)


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


def test_a_file_that_was_cut_anywhere_is_moved_aside(tmp_path: Path) -> None:
    """None of its keys is used, and the next one is written to a new file."""
    path = tmp_path / "topic_keys.json"
    keyring = TopicKeyring.load(path, MESH_ID, 1)
    keyring.add(held("news", 1))
    keyring.add(held("news", 2))
    raw = path.read_bytes()
    for size in (*range(0, len(raw), 41), len(raw) - 1):
        path.write_bytes(raw[:size])
        again = TopicKeyring.load(path, MESH_ID, size)
        assert (again.topics, path.exists()) == ((), False)
        assert (tmp_path / f"topic_keys.json.malformed-{size}").read_bytes() == raw[:size]
        again.add(held("news", 1))
        assert TopicKeyring.load(path, MESH_ID, 1).newest("news") == held("news", 1)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"7",
        b'{"schema_version":1}',
        b'{"schema_version":1,"keys":{"a":1}}',
        b'{"schema_version":1,"keys":[7]}',
        b'{"schema_version":1,"keys":["x"]}',
        b'{"schema_version":1,"keys":[{"topic":7}]}',
        b'{"schema_version":true,"keys":[]}',
        b"[" * 100_000,
    ],
)
def test_a_file_of_another_form_is_moved_aside(tmp_path: Path, text: bytes) -> None:
    """The daemon starts without its keys."""
    path = tmp_path / "topic_keys.json"
    path.write_bytes(text)
    path.chmod(0o600)
    assert TopicKeyring.load(path, MESH_ID, 3).topics == ()
    assert (tmp_path / "topic_keys.json.malformed-3").read_bytes() == text
