"""The directory on disk: a change is appended, and a crash always leaves an earlier state of it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.identity import peersfile
from claudemesh.daemon.identity.peersfile import APPEND_AT_LEAST, Kept, PeersFile


def peer(number: int, summary: str = "") -> dict[str, Any]:
    """An entry; its content does not matter here."""
    return {"member_id": f"m{number}", "summary": summary}


def latest(kept: Kept) -> dict[str, str]:
    """Return the last entry of each member."""
    return {entry["member_id"]: entry["summary"] for entry in kept.entries}


def write(file: PeersFile, version: str, changed: list[dict[str, Any]], state: dict[str, str]) -> None:
    """Keep a change, and note it in the state that a whole copy is written from."""
    state.update({entry["member_id"]: entry["summary"] for entry in changed})
    file.write(
        version,
        changed,
        ({"member_id": name, "summary": text} for name, text in state.items()),
    )


def begun(
    folder: Path, count: int, *, append_at_least: int = APPEND_AT_LEAST
) -> tuple[PeersFile, dict[str, str]]:
    """A file with so many members, at version 1."""
    file = PeersFile(folder / "peers.json", append_at_least=append_at_least)
    state = dict[str, str]()
    file.load()
    write(file, "1-aa", [peer(number) for number in range(count)], state)
    return file, state


def test_one_change_of_twenty_thousand_members_is_written_alone(tmp_path: Path) -> None:
    """peers.json stays as it is, down to its inode."""
    file, state = begun(tmp_path, 20_000)
    before = (tmp_path / "peers.json").stat()
    for number in range(50):
        write(file, f"{number + 2}-aa", [peer(number, "new")], state)
    after = (tmp_path / "peers.json").stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert (tmp_path / "peers.changes").stat().st_size < 50 * 200
    kept = PeersFile(tmp_path / "peers.json").load()
    assert (kept.version, latest(kept)) == ("51-aa", state)


def test_changes_never_grow_larger_than_the_directory(tmp_path: Path) -> None:
    """The size of the file read at the start stays in proportion; after that the copy is rewritten."""
    file, state = begun(tmp_path, 100, append_at_least=1000)
    copies = set()
    for number in range(500):
        write(file, f"{number + 2}-aa", [peer(number % 100, f"text {number}")], state)
        copies.add((tmp_path / "peers.json").stat().st_ino)
        changes = tmp_path / "peers.changes"
        if changes.exists():
            assert changes.stat().st_size <= max(1000, (tmp_path / "peers.json").stat().st_size)
    assert 1 < len(copies) < 50
    kept = PeersFile(tmp_path / "peers.json").load()
    assert (kept.version, latest(kept)) == ("501-aa", state)


def test_wherever_the_last_write_was_cut_the_state_before_it_is_read(tmp_path: Path) -> None:
    """And the next write goes on from there."""
    file, state = begun(tmp_path, 3)
    states = [dict(state)]
    for number in range(3):
        write(file, f"{number + 2}-aa", [peer(number, f"text {number}")], state)
        states.append(dict(state))
    changes = tmp_path / "peers.changes"
    whole = changes.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        changes.write_bytes(whole[:cut])
        lines = sum(end <= cut for end in ends)
        again = PeersFile(tmp_path / "peers.json")
        kept = again.load()
        assert (kept.version, latest(kept)) == (f"{lines + 1}-aa", states[lines])
        after = dict(states[lines])
        write(again, "9-bb", [peer(2, "later")], after)
        kept = PeersFile(tmp_path / "peers.json").load()
        assert (kept.version, latest(kept)) == ("9-bb", after)


def test_lines_of_an_older_copy_are_not_read(tmp_path: Path) -> None:
    """A crash between the new peers.json and the removal of peers.changes leaves both."""
    file, state = begun(tmp_path, 3)
    write(file, "2-aa", [peer(0, "older")], state)
    write(file, "3-aa", [peer(0, "newer")], state)
    left = (tmp_path / "peers.changes").read_bytes()
    eager = PeersFile(tmp_path / "peers.json", append_at_least=0)
    eager.load()
    write(eager, "4-aa", [peer(1, "x" * 500)], state)
    assert not (tmp_path / "peers.changes").exists()
    (tmp_path / "peers.changes").write_bytes(left)
    (tmp_path / "peers.changes").chmod(0o600)
    kept = PeersFile(tmp_path / "peers.json").load()
    assert (kept.version, latest(kept)) == ("4-aa", state)


def test_changes_that_are_lost_cost_the_version_only(tmp_path: Path) -> None:
    """The content of the last complete copy is known, at its version."""
    file, state = begun(tmp_path, 3)
    before = dict(state)
    write(file, "2-aa", [peer(0, "new")], state)
    (tmp_path / "peers.changes").unlink()
    kept = PeersFile(tmp_path / "peers.json").load()
    assert (kept.version, latest(kept)) == ("1-aa", before)


def test_a_file_of_an_earlier_program_is_read_and_then_replaced(tmp_path: Path) -> None:
    """It has neither a version nor a copy; and the earlier program reads the new one."""
    path = tmp_path / "peers.json"
    path.touch(0o600)
    path.write_text('{"schema_version": 1, "peers": [{"member_id": "m0", "summary": "old"}]}')
    file = PeersFile(path)
    assert file.load() == Kept(({"member_id": "m0", "summary": "old"},), None)
    write(file, "1-aa", [peer(1, "new")], {"m0": "old"})
    assert not (tmp_path / "peers.changes").exists()
    assert latest(PeersFile(path).load()) == {"m0": "old", "m1": "new"}


def test_both_files_are_private(tmp_path: Path) -> None:
    """They say whom this host knows."""
    file, state = begun(tmp_path, 1)
    write(file, "2-aa", [peer(0, "new")], state)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"peers.json": 0o600, "peers.changes": 0o600}


def test_a_write_that_failed_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves half a line, which is written over."""
    file, state = begun(tmp_path, 3)
    write(file, "2-aa", [peer(0, "one")], state)
    changes = tmp_path / "peers.changes"

    def fails(path: Path, offset: int, data: bytes) -> None:
        with path.open("ab") as half:
            half.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(peersfile, "append_private", fails)
        with pytest.raises(OSError, match=r"peers\.changes"):
            write(file, "3-aa", [peer(1, "two")], state)
    assert not changes.read_bytes().endswith(b"\n")
    write(file, "4-aa", [peer(1, "two"), peer(2, "three")], state)
    kept = PeersFile(tmp_path / "peers.json").load()
    assert (kept.version, latest(kept)) == ("4-aa", {"m0": "one", "m1": "two", "m2": "three"})
