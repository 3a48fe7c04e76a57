"""Manual pages: one for each command, readable by the formatter without a complaint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from claudemesh.cli.main import cli
from manpages import write
from tests.support.pyz import REPOSITORY

needs_man = pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")


def test_each_command_has_a_page(tmp_path: Path) -> None:
    """And there is one for all of them; two runs give the same bytes."""
    pages = {path.name: path.read_bytes() for path in write(tmp_path)}
    names = cli.list_commands(cli.make_context("claudemesh", ["--"], resilient_parsing=True))
    assert pages.keys() == {"claudemesh.1", *(f"claudemesh-{name}.1" for name in names)}
    assert {path.name: path.read_bytes() for path in write(tmp_path)} == pages


def test_the_script_writes_them(tmp_path: Path) -> None:
    """By itself, as it is called from a shell."""
    done = subprocess.run([str(REPOSITORY / "build" / "man"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "man1" / "claudemesh-send.1").is_file()


@needs_man
def test_the_formatter_has_no_complaint_and_shows_what_the_help_says(tmp_path: Path) -> None:
    """Texts with quotes, dashes and dots come out as they are."""
    for path in write(tmp_path):
        done = subprocess.run(
            ["man", "--warnings", "-l", str(path)],
            env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, ""), path
    shown = subprocess.run(
        ["man", "-l", str(tmp_path / "man1/claudemesh-send.1")],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "claudemesh send alice 'the build is green'" in shown
    assert "claudemesh send alice -- -v" in shown
    assert "client_message_id string" in shown
    assert "EXIT STATUS" in shown
