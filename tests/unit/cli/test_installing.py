"""Files that `completion --install` writes: once, beside their content, and never over another program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh.cli.installing import SHELLS, Places, install_launcher, install_script, with_block
from claudemesh.runtime.exits import ExitWith
from tests.support.waiting import WAIT_S


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """The folders of a user with an empty home."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Places.of_environment()


@pytest.mark.parametrize("text", ["", "alias a=b", "alias a=b\n", "alias a=b\n\n"])
def test_a_block_is_added_once_and_replaced_where_it_stands(text: str) -> None:
    """Lines before and behind it stay."""
    once = with_block(text, "first")
    assert once.startswith(text)
    assert with_block(once, "first") == once
    behind = f"{once}later\n"
    assert with_block(behind, "second") == behind.replace("first", "second")


def test_a_block_without_an_end_is_left_alone() -> None:
    """Nothing of a damaged file is lost."""
    damaged = "# >>> claudemesh completion >>>\nalias a=b\n"
    assert with_block(damaged, "block").startswith(damaged)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_second_installation_changes_nothing(places: Places, shell: str) -> None:
    """The script is where the shell looks; the start-up file keeps its content and mode."""
    startup = places.startup_file(shell)
    if startup is not None:
        startup.write_bytes(b"alias a='\xff'")
        startup.chmod(0o640)
    written = install_script(places, shell, "script")
    assert written == [places.script(shell), *([startup] if startup else [])]
    assert places.script(shell).read_text() == "script"
    assert install_script(places, shell, "script") == [places.script(shell)]
    if startup is not None:
        assert startup.read_bytes().startswith(b"alias a='\xff'\n")
        assert startup.stat().st_mode & 0o777 == 0o640


def test_a_startup_file_that_is_a_link_stays_one(places: Places, tmp_path: Path) -> None:
    """Many keep such files in a folder of their own."""
    real = tmp_path / "dotfiles" / "bashrc"
    real.parent.mkdir()
    real.write_text("alias a=b\n")
    (tmp_path / ".bashrc").symlink_to(real)
    install_script(places, "bash", "script")
    assert (tmp_path / ".bashrc").is_symlink()
    assert "claudemesh" in real.read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_reads_the_script_at_its_next_start(places: Places, tmp_path: Path) -> None:
    """A real shell."""
    install_script(places, "bash", "claudemesh_was_read=yes")
    asked = ["bash", "--rcfile", str(tmp_path / ".bashrc"), "-i", "-c", 'echo "<$claudemesh_was_read>"']
    done = subprocess.run(asked, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=WAIT_S)
    assert "<yes>" in done.stdout


def test_the_launcher_starts_the_archive_by_the_named_python(places: Places, tmp_path: Path) -> None:
    """Also with a quote and a blank in its path, and without python3 on the PATH."""
    archive = tmp_path / "it's a file.py"
    archive.write_text("import sys; print(sys.argv[1:], sys.flags.isolated, sys.executable)")
    path = install_launcher(places, sys.executable, archive)
    environment = {**os.environ, "PATH": "/nonexistent"}
    done = subprocess.run(
        [path, "a b", "--x"], env=environment, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.stdout == f"['a b', '--x'] 1 {sys.executable}\n"
    assert install_launcher(places, sys.executable, archive) == path


def test_a_launcher_replaces_no_other_program(places: Places) -> None:
    """It names the file, and leaves it as it is."""
    places.launcher.parent.mkdir(parents=True)
    places.launcher.write_text("another")
    with pytest.raises(ExitWith, match="was left as it is"):
        install_launcher(places, sys.executable, Path("/a.pyz"))
    assert places.launcher.read_text() == "another"
