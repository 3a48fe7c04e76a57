"""Files of a membership that are damaged, cut, newer, missing, or open to others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from claudemesh.home.ended import load_ended
from claudemesh.home.host_file import load_host
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership
from claudemesh.runtime.exits import ExitWith

# Each file that a start needs, with the command or the act that its refusal names.
FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "keypair.json": (Keyring.load, "restore it from a backup"),
    "membership.json": (load_membership, "restore it from a backup"),
    "host_fingerprint.json": (load_host, "claudemesh daemon accept-host"),
    "ended.json": (load_ended, "move it away"),
}
DAMAGES = {
    "empty": b"",
    "cut": b'{"schema_version": 1, "key',
    "binary": b"\xff\x00" * 50,
    "another value": b"[]",
    "no fields": b'{"schema_version": 1}',
}


def refusal(name: str, path: Path) -> ExitWith:
    with pytest.raises(ExitWith) as refused:
        FILES[name][0](path)
    return refused.value


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_the_remedy_and_stays(tmp_path: Path, name: str, damage: str) -> None:
    """It may hold the only copy of a key, so it is never replaced."""
    path = tmp_path / name
    path.write_bytes(DAMAGES[damage])
    path.chmod(0o600)
    told = refusal(name, path)
    assert (told.code, told.error) == (78, "malformed_file")
    assert str(path) in told.message
    assert FILES[name][1] in told.message
    assert "Error" not in told.message
    assert path.read_bytes() == DAMAGES[damage]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_newer_version_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    """A backup would not help."""
    path = tmp_path / name
    path.write_bytes(b'{"schema_version": 999, "new": {}}')
    path.chmod(0o600)
    told = refusal(name, path)
    assert (told.code, told.error) == (78, "schema_too_new")
    assert str(path) in told.message


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    """The mode is named, and what corrects it."""
    path = tmp_path / name
    path.write_bytes(b'{"schema_version": 1}')
    path.chmod(0o644)
    told = refusal(name, path)
    assert (told.code, told.error, "chmod" in told.message) == (77, "unsafe_file", True)
