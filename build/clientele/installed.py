"""A client of agents in a home of its own: nothing of the user is read or changed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.processes import Daemon

_LIMIT_S: Final = 120


@dataclass(frozen=True)
class Installed:
    """The program of a client, with a home and a project, at a host."""

    program: Path
    home: Path
    daemon: Daemon

    @property
    def project(self) -> Path:
        """The directory in which it is started; its name is that of the session."""
        return self.home / "project"

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of the client: none of the calling shell but its path."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "CLAUDEMESH_HOME": str(self.daemon.home),
        }

    def mesh(self, *arguments: str) -> str:
        """Run a command of claudemesh, and return what it prints."""
        return self._run([str(self.home / "bin" / "claudemesh"), *arguments])

    def run(self, *arguments: str) -> str:
        """Run the client without a terminal, and return what it prints."""
        return self._run([str(self.program), *arguments])

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.project,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
        assert done.returncode == 0, f"{command[1:]}: {done.stdout} {done.stderr}"
        return done.stdout
