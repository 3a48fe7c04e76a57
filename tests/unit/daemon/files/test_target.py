"""Targets of downloads: below one directory, nothing replaced, no link followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claudemesh.daemon.files.target import Target, open_target
from claudemesh.protocol.errors import ProtocolError

ID = "01HZ0000000000000000000000"


def target(folder: Path, out: Path | str, offered: str = "name.txt") -> Target:
    return open_target(str(out), offered, ID, folder / "home")


def refused(folder: Path, out: Path | str, offered: str = "name.txt") -> str:
    with pytest.raises(ProtocolError) as caught:
        target(folder, out, offered)
    assert caught.value.message.endswith(".")
    return caught.value.code


def written(folder: Path, out: Path | str, offered: str = "name.txt") -> Path:
    made = target(folder, out, offered)
    os.write(made.descriptor, b"content")
    made.finish()
    made.tidy()
    made.close()
    return made.path


def test_a_whole_file_gets_its_name_and_no_mode_bits(tmp_path: Path) -> None:
    """Nothing has the name before, and nothing else stays."""
    path = written(tmp_path, tmp_path, "../../x/run.sh")
    assert path == tmp_path / "run.sh"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"content", 0o600)
    assert os.listdir(tmp_path) == ["run.sh"]
    assert written(tmp_path, tmp_path / "other").name == "other"


def test_no_file_is_replaced(tmp_path: Path) -> None:
    """Not one that is there before, nor one that appears meanwhile, nor a link that leads nowhere."""
    (tmp_path / "name.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert refused(tmp_path, tmp_path) == refused(tmp_path, tmp_path / "dangling") == "file_exists"
    late = target(tmp_path, tmp_path / "late")
    os.write(late.descriptor, b"content")
    (tmp_path / "late").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ProtocolError, match="file_exists"):
        late.finish()
    late.close()
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "name.txt").read_text() == "mine"


def test_a_temporary_file_that_another_has_laid_out_is_refused(tmp_path: Path) -> None:
    """A link in its place would send the file elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    part = tmp_path / f".{ID}.part"
    part.symlink_to(victim)
    assert refused(tmp_path, tmp_path) == "unsafe_file"
    part.unlink()
    part.hardlink_to(victim)
    assert refused(tmp_path, tmp_path) == "unsafe_file"
    part.unlink()
    os.mkfifo(part)
    assert refused(tmp_path, tmp_path) == "unsafe_file"
    part.unlink()
    part.write_text("")
    part.chmod(0o666)
    assert refused(tmp_path, tmp_path) == "unsafe_file"
    assert victim.read_text() == "mine"


def test_two_downloads_do_not_write_one_file(tmp_path: Path) -> None:
    """The second ends at once, and the first goes on."""
    first = target(tmp_path, tmp_path)
    assert refused(tmp_path, tmp_path) == "file_exists"
    first.close()
    target(tmp_path, tmp_path).close()


def test_a_download_that_a_crash_has_ended_behind_the_name_is_whole(tmp_path: Path) -> None:
    """Name and temporary file are the same file then; another file under the name is not taken for it."""
    path = written(tmp_path, tmp_path)
    (tmp_path / f".{ID}.part").hardlink_to(path)
    again = target(tmp_path, tmp_path)
    assert again.is_named
    again.finish()
    again.tidy()
    again.close()
    assert (os.listdir(tmp_path), path.read_bytes()) == (["name.txt"], b"content")
    (tmp_path / f".{ID}.part").write_bytes(b"part")
    assert refused(tmp_path, tmp_path) == "file_exists"
