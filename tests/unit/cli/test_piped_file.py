"""The directory of a download to standard output is private, and the same after a cut."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from claudemesh.cli.piped_file import kept_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory, which is empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def cut(*names: str, file: bool = True, error: type[BaseException] = KeyboardInterrupt) -> Path:
    """The directory of a command that ends with an error."""
    with pytest.raises(error), kept_folder(*names) as folder:
        if file:
            (folder / "part").write_bytes(b"x")
        raise error
    return folder


def test_a_cut_download_is_found_by_the_same_command_and_by_no_other(temporary: Path) -> None:
    folder = cut("daemon", "file")
    with kept_folder("daemon", "other") as other, kept_folder("daemon", "file") as again:
        assert (again, other != folder) == (folder, True)
        assert (again / "part").read_bytes() == b"x"
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_two_commands_at_once_have_a_directory_each(temporary: Path) -> None:
    with kept_folder("file") as first, kept_folder("file") as second:
        assert first != second
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("file", "error"), [(False, ValueError), (True, BrokenPipeError)])
def test_nothing_is_kept_that_nobody_wants(temporary: Path, file: bool, error: type[BaseException]) -> None:
    """Of a download that was refused, and of one whose reader has gone."""
    cut("file", file=file, error=error)
    assert list(temporary.iterdir()) == []


def test_a_link_and_an_open_directory_in_its_place_are_not_used(temporary: Path) -> None:
    folder, elsewhere = cut("file"), temporary / "elsewhere"
    elsewhere.mkdir()
    folder.chmod(0o777)
    with kept_folder("file") as found:
        assert found != folder
    (folder / "part").unlink()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with kept_folder("file") as found:
        assert found.resolve() not in (folder, elsewhere)
    assert folder.is_symlink()
