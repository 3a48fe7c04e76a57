"""`completion`: scripts for each shell, and what they ask for."""

from __future__ import annotations

import pytest

from tests.support.cli import homes, run
from tests.support.processes import Mesh


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
