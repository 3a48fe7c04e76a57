"""The key archive: bounds, expiry by lived time, and damaged files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from claudemesh.home.key_archive import DAY_MS, MAX_KEYS, ArchivedKey, KeyArchive, Moment
from claudemesh.home.keyring import Keyring, NextKeys
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.rotation import make_rotation
from claudemesh.runtime.exits import ExitWith
from tests.support.daemon import MESH_ID, NOW, new_ulid, person

GRACE_MS = 7 * DAY_MS


def key(identity: Identity, lived_ms: int = 0) -> ArchivedKey:
    return ArchivedKey.of(identity, NOW, Moment(NOW, lived_ms), GRACE_MS)


def archive_of(folder: Path, *lived_ms: int) -> KeyArchive:
    archive = KeyArchive.load(folder / "keypair-archive.json", NOW)
    for each in lived_ms:
        archive.add(key(person("one").identity, each))
    return archive


def test_the_file_has_the_documented_form_and_reads_back(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, 5)
    path = tmp_path / "keypair-archive.json"
    data = json.loads(path.read_text())
    assert (data["schema_version"], data["max_archived_keys"]) == (1, 8)
    assert set(data["keys"][0]) >= {
        "ed25519_pubkey",
        "x25519_pubkey",
        "x25519_privkey",
        "key_id",
        "created_at",
        "rotated_out_at",
        "expires_at",
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyArchive.load(path, NOW).keys == archive.keys


def test_a_key_is_added_once(tmp_path: Path) -> None:
    """A rotation that goes on after a crash archives the same key again."""
    archive, one = archive_of(tmp_path), person("one").identity
    assert archive.add(key(one, 1)) == archive.add(key(one, 2)) == 0
    assert [each.lived_ms for each in archive.keys] == [1]


def test_over_the_bound_the_oldest_key_leaves(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, *range(MAX_KEYS))
    assert archive.add(key(person("one").identity, MAX_KEYS)) == 1
    assert [each.lived_ms for each in archive.keys] == list(range(1, MAX_KEYS + 1))


def test_keys_expire_when_the_grace_period_was_lived_through(tmp_path: Path) -> None:
    """Wall times are for display: no clock that is set removes a key."""
    archive = archive_of(tmp_path, 0, 1000)
    assert archive.expire(GRACE_MS - 1, GRACE_MS) == 0
    assert archive.expire(GRACE_MS, GRACE_MS) == 1
    assert [each.lived_ms for each in archive.keys] == [1000]
    assert archive.expire(GRACE_MS + 1000, GRACE_MS) == 1
    assert KeyArchive.load(tmp_path / "keypair-archive.json", NOW).keys == ()


@pytest.mark.parametrize("lived_ms", [None, 10 * GRACE_MS])
def test_a_key_of_another_clock_begins_its_grace_period_now(tmp_path: Path, lived_ms: int | None) -> None:
    """A restored file, or one of another program, has no stamp of this host's clock."""
    path = tmp_path / "keypair-archive.json"
    archive_of(tmp_path, 0)
    data = json.loads(path.read_text())
    data["keys"][0]["rotated_out_lived_ms"] = lived_ms
    path.write_text(json.dumps(data))
    path.chmod(0o600)
    archive = KeyArchive.load(path, NOW)
    assert archive.expire(GRACE_MS, GRACE_MS) == 0
    again = KeyArchive.load(path, NOW)
    assert again.expire(2 * GRACE_MS - 1, GRACE_MS) == 0
    assert again.expire(2 * GRACE_MS, GRACE_MS) == 1


def _twice(data: Any) -> Any:
    return data | {"keys": data["keys"] * 2}


def _with(**changes: Any) -> Any:
    return lambda data: data | {"keys": [data["keys"][0] | changes]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: "no JSON",
        lambda data: [],
        lambda data: data | {"schema_version": 2},
        lambda data: data | {"keys": {}},
        lambda data: data | {"keys": [5]},
        _twice,
        _with(x25519_privkey="AAAA"),
        _with(x25519_pubkey="0" * 64),
        _with(x25519_pubkey=None),
        _with(ed25519_pubkey="x"),
        _with(key_id="k"),
        _with(created_at="yesterday"),
        _with(expires_at=5),
        _with(rotated_out_lived_ms=-1),
        _with(rotated_out_lived_ms="5"),
    ],
)
def test_a_malformed_archive_is_moved_aside_and_an_empty_one_begins(tmp_path: Path, spoil: Any) -> None:
    """Nothing of it is deleted."""
    path = tmp_path / "keypair-archive.json"
    archive_of(tmp_path, 0)
    wrong = spoil(json.loads(path.read_text()))
    text = wrong if isinstance(wrong, str) else json.dumps(wrong)
    path.write_text(text)
    assert KeyArchive.load(path, NOW).keys == ()
    assert (tmp_path / f"keypair-archive.json.malformed-{NOW}").read_text() == text
    assert not path.exists()


def test_an_archive_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "keypair.json", os.urandom, f"k_{new_ulid()}")
    archive_of(tmp_path, 0)
    (tmp_path / "keypair-archive.json").chmod(0o644)
    with pytest.raises(ExitWith, match="chmod 600"):
        Keyring.load_all(tmp_path / "keypair.json", NOW)


def rotating(folder: Path) -> tuple[Keyring, NextKeys]:
    """Return a keyring whose rotation is prepared."""
    keyring = Keyring.create(folder / "keypair.json", os.urandom, f"k_{new_ulid()}")
    new = person("new").identity
    following = NextKeys(new, make_rotation(keyring.current, new, mesh_id=MESH_ID, rotated_at_ms=1))
    keyring.prepare(following)
    return keyring, following


def test_an_unfinished_rotation_is_found_by_the_next_start(tmp_path: Path) -> None:
    keyring, following = rotating(tmp_path)
    again = Keyring.load_all(tmp_path / "keypair.json", NOW)
    assert (again.current, again.next) == (keyring.current, following)
    keyring.archive_current(Moment(NOW, 0), GRACE_MS)
    keyring.install_next()
    finished = Keyring.load_all(tmp_path / "keypair.json", NOW)
    assert (finished.current, finished.next) == (following.identity, None)
    assert finished.rotations == (following.statement,)
    assert not (tmp_path / "keypair.next.json").exists()


def test_what_was_sealed_to_either_pair_is_opened_after_the_rotation(tmp_path: Path) -> None:
    keyring, following = rotating(tmp_path)
    old, bob = keyring.current, person("bob").identity
    before = keyring.shared(bob.x25519_pubkey)
    keyring.archive_current(Moment(NOW, 0), GRACE_MS)
    keyring.install_next()
    again = Keyring.load_all(tmp_path / "keypair.json", NOW)
    assert again.shared(bob.x25519_pubkey, old.ed25519_pubkey) == before
    assert again.shared(bob.x25519_pubkey, following.identity.ed25519_pubkey) != before
    assert again.is_own(old.ed25519_pubkey)
    assert again.pubkey_of(old.key_id) == old.ed25519_pubkey
    again.expire(GRACE_MS, GRACE_MS)
    assert again.is_own(old.ed25519_pubkey)
    with pytest.raises(Exception, match="cannot_open"):
        again.shared(bob.x25519_pubkey, old.ed25519_pubkey)


def test_a_refused_rotation_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    keyring, _ = rotating(tmp_path)
    before = keyring.current
    keyring.archive_current(Moment(NOW, 0), GRACE_MS)
    keyring.roll_back()
    again = Keyring.load_all(tmp_path / "keypair.json", NOW)
    assert (again.current, again.next, again.archive.keys) == (before, None, ())


def test_a_malformed_next_file_is_moved_aside(tmp_path: Path) -> None:
    """The current keys work without it, and it is not deleted."""
    keyring, _ = rotating(tmp_path)
    path = tmp_path / "keypair.next.json"
    text = path.read_text().replace(keyring.pubkey, "0")
    path.write_text(text)
    again = Keyring.load_all(tmp_path / "keypair.json", NOW)
    assert (again.current, again.next) == (keyring.current, None)
    assert (tmp_path / f"keypair.next.json.malformed-{NOW}").read_text() == text
