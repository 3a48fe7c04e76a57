"""Commands in a sandbox of an agent's client, which forbids unix sockets."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from tests.support.processes import REPOSITORY, mesh
from tests.support.waiting import WAIT_S

UNAVAILABLE = 69
SANDBOX = REPOSITORY / "tests/sdk/sandbox.py"


@pytest.mark.parametrize(
    "command",
    [["status"], ["listen"], ["inbox", "-f"], ["events"], ["send", "bob", "--lines"], ["down"]],
    ids=lambda command: command[0],
)
def test_a_command_names_the_tools_that_work_there(command: list[str]) -> None:
    """It neither waits for a daemon that runs already, nor offers to start it."""
    with mesh("alice", "bob") as made:
        environment = {
            **os.environ,
            "CLAUDEMESH_HOME": str(made.daemons["alice"].home),
            "PYTHONPATH": str(REPOSITORY),
            "CLAUDECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, str(SANDBOX), str(errno.EPERM), sys.executable, "-m", "claudemesh", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
        assert "mesh_send" in done.stderr
