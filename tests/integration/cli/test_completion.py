"""`completion`: scripts for each shell, and what they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import homes, run
from tests.support.processes import Mesh

USAGE = 64


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(pair: Mesh, shell: str) -> None:
    """A script for each shell."""
    alice, _ = homes(pair)
    assert "_CLAUDEMESH_COMPLETE" in run(alice, "completion", shell).out


def test_completion_knows_commands_and_members(pair: Mesh) -> None:
    """The request of the shell when TAB is pressed."""
    alice, _ = homes(pair)
    asked = {"_CLAUDEMESH_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert "plain,daemon" in run(alice, COMP_WORDS="claudemesh da", **asked).out
    assert "plain,bob" in run(alice, COMP_WORDS="claudemesh send b", **asked | {"COMP_CWORD": "2"}).out


def test_completion_is_installed_for_the_shell_of_the_user(pair: Mesh, tmp_path: Path) -> None:
    """That of the variable SHELL, or the one that is named; another one is refused."""
    alice, _ = homes(pair)
    place = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "", "ZDOTDIR": ""}
    done = run(alice, "completion", "--install", "--json", SHELL="/bin/bash", **place)
    script = tmp_path / ".local" / "share" / "claudemesh" / "completion.bash"
    assert done.json["files"] == [str(script), str(tmp_path / ".bashrc")]
    assert "_CLAUDEMESH_COMPLETE" in script.read_text()
    fish = run(alice, "completion", "fish", "--install", "--json", SHELL="/bin/bash", **place)
    assert fish.json["files"] == [str(tmp_path / ".config" / "fish" / "completions" / "claudemesh.fish")]
    assert run(alice, "completion", "--install", SHELL="/bin/tcsh", **place).code == USAGE
    assert run(alice, "completion", "bash", "--launcher", **place).code == USAGE
    # There is no file claudemesh.pyz to launch.
    assert run(alice, "completion", "bash", "--install", "--launcher", **place).code == USAGE
