"""An interrupted torture leaves nothing behind: no process, no mount, no folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.pyz import REPOSITORY, build


@pytest.fixture
def folder() -> Generator[Path]:
    """A short folder for temporary files, because a socket path has at most 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="cm-i-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def mentioning(folder: Path) -> list[int]:
    """The processes whose environment or command line names a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and int(entry.name) != os.getpid() and os.fsencode(folder) in told:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(how: signal.Signals, folder: Path) -> None:
    """While a process is stopped and a disk is full, too."""
    build()
    command = [sys.executable, "build/torture.py", "--seed", "3", "--minutes", "10"]
    process = subprocess.Popen(
        [*command, "--only", "pause,disk_full"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("warm"):
                break
        assert len(mentioning(folder)) > 1
        process.send_signal(how)
        said = process.stdout.read()
    assert process.returncode == 130, said
    assert mentioning(folder) == []
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert list(folder.iterdir()) == []
