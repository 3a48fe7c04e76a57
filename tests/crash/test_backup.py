"""A restore that is killed at any step leaves the host as it was, or all of its files in one place."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.cli import run, run_armed
from tests.support.processes import mesh


def restore_killed_at(home: Path, step: str, *arguments: str) -> None:
    """Run `daemon restore` until a failpoint kills it."""
    done = run_armed(home, f"{step}=kill", "daemon", "restore", *arguments)
    assert done.code == -signal.SIGKILL, done.err


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
        restore_killed_at(alice.home, step, *arguments)
        aside = list(alice.home.glob("before-restore-demo-*"))
        [there] = aside or [alice.root]
        found = {entry.name: entry.read_bytes() for entry in there.iterdir() if entry.is_file()}
        assert found == before
        assert run(alice.home, "daemon", "restore", *arguments).code == 0
        alice.start()
        alice.ready()
