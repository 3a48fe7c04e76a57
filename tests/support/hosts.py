"""Hosts that have never seen claudemesh: empty homes, a shell, the archive, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import REPOSITORY, free_port
from tests.support.pyz import PYZ
from tests.support.waiting import WAIT_S


class Host:
    """A host: a home of its own, a shell, and the port of this test's broker."""

    def __init__(self, home: Path, port: int, prefix: Sequence[str] = ()) -> None:
        """`prefix` is run in front of each command: it enters a network namespace, for example."""
        self.home = home
        self.prefix = list(prefix)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
            "HOME": str(home),
            "CLAUDEMESH_BROKER_LISTEN": f"127.0.0.1:{port}",
            "CLAUDEMESH_CACHE": str(home.parent / "cache"),
        }
        self.environment.pop("PYTHONPATH", None)

    def run(self, script: str) -> str:
        """Run commands in bash; any that fails fails the test."""
        program = f'set -eu\nclaudemesh() {{ "{sys.executable}" "{PYZ}" "$@"; }}\n{script}'
        done = subprocess.run(
            [*self.prefix, "bash", "-c", program],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def python(self, program: str) -> str:
        """Run a program with the SDK's file beside it."""
        shutil.copy(REPOSITORY / "claudemesh/sdk.py", self.home / "sdk.py")
        program = program.replace("from claudemesh import", "from sdk import")
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, (program, done.stderr)
        return done.stdout


@contextmanager
def two_hosts() -> Generator[tuple[Host, Host]]:
    """Make two hosts; what they start is ended."""
    root = Path(tempfile.mkdtemp(prefix="cm-"))
    made, port = [], free_port()
    for name in ("one", "two"):
        (root / name).mkdir(mode=0o700)
        made.append(Host(root / name, port))
    try:
        yield made[0], made[1]
    finally:
        for host in made:
            host.run("claudemesh down || true; claudemesh broker down")
        shutil.rmtree(root, ignore_errors=True)
