"""A restore that is killed at any step leaves the host as it was, or all of its files in one place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.processes import REPOSITORY, Mesh, mesh


def restore_killed_at(made: Mesh, home: Path, step: str, *arguments: str) -> None:
    """Run `daemon restore` until a failpoint kills it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
    environment |= {"CLAUDEMESH_HOME": str(home), "CLAUDEMESH_FAILPOINTS": f"{step}=kill"}
    command = [sys.executable, "-m", "tests.support.armed", "daemon", "restore", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    "step", ["restore_backup.after_files", "restore_backup.after_aside", "file.after_sync"]
)
def test_a_restore_that_was_killed_is_repeated(step: str) -> None:
    """The files of the member that was there are whole: in their place, or moved aside."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        secret = made.root / "passphrase"
        secret.write_text("correct horse battery")
        secret.chmod(0o600)
        path = made.root / "a.backup"
        given = ("--passphrase-file", str(secret))
        assert run(alice.home, "daemon", "backup", "--out", str(path), *given).code == 0
        alice.stop()
        before = {entry.name: entry.read_bytes() for entry in alice.root.iterdir() if entry.is_file()}
        arguments = ("--in", str(path), *given, "--replace")
        restore_killed_at(made, alice.home, step, *arguments)
        aside = list(alice.home.glob("before-restore-demo-*"))
        [there] = aside or [alice.root]
        found = {entry.name: entry.read_bytes() for entry in there.iterdir() if entry.is_file()}
        assert found == before
        assert run(alice.home, "daemon", "restore", *arguments).code == 0
        alice.start()
        alice.ready()
