"""A file that the broker does not take: its sender is told the cause of the wait."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import REPOSITORY, Daemon, mesh, until
from tests.support.waiting import WAIT_S

CAUSE = "mesh_quota_exceeded: The member may have 400 bytes of files"


@contextmanager
def on_terminal(daemon: Daemon, *arguments: str) -> Generator[int]:
    """A command whose standard error is a terminal; the descriptor of what it shows."""
    shown, terminal = pty.openpty()
    environment = {**os.environ, "CLAUDEMESH_HOME": str(daemon.home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "claudemesh", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    try:
        yield shown
    finally:
        process.kill()
        process.wait(WAIT_S)
        os.close(shown)


def test_a_file_over_the_quota_tells_its_sender_the_cause_of_the_wait(tmp_path: Path) -> None:
    """Beside the progress on a terminal, to a script that waits, and in the list of sent files."""
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    prefix = ["env", "CLAUDEMESH_BROKER_BLOB_QUOTA_BYTES=2000"]
    with mesh("alice", "bob", broker_prefix=prefix) as made:
        alice = made.daemons["alice"]
        text = ""
        with on_terminal(alice, "file", "send", str(path), "bob") as shown:
            while CAUSE not in text:
                text += os.read(shown, 65_536).decode()
        command = [sys.executable, "-m", "claudemesh", "file", "send", str(path), "bob", "--wait"]
        environment = {**os.environ, "CLAUDEMESH_HOME": str(alice.home), "PYTHONPATH": str(REPOSITORY)}
        script = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert script.stderr is not None
        with script:
            line = script.stderr.readline()
            script.kill()
        assert CAUSE in line
        until(lambda: CAUSE in made.cli(alice, "file", "list", "--sent"), "the list has the cause")
