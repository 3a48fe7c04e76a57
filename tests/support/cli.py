"""Run the command line as a user does: a process, a home of its own, what it prints and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.answers import check
from tests.support.nursery import nursery_for
from tests.support.processes import REPOSITORY, Mesh
from tests.support.waiting import WAIT_S

# A command that should have ended or printed something must not keep the tests for ever.
LIMIT_S = 120


@dataclass(frozen=True)
class Ran:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(home: Path, *arguments: str, stdin: bytes = b"", full: bool = False, **environment: str) -> Ran:
    """Run a command, and check JSON against its declaration; `full` takes the way past the fast path."""
    program = "from claudemesh.cli.main import main; raise SystemExit(main())"
    start = ["-c", program] if full else ["-m", "claudemesh"]
    ran = _run("" if full else "cli", start, home, arguments, stdin, environment)
    if "--json" in arguments and ran.code == 0:
        check(arguments, ran.out)
    return ran


def run_armed(home: Path, failpoint: str, *arguments: str, **environment: str) -> Ran:
    """Run a command with an armed failpoint, such as `run.after_join=kill`. A killed one has the code -9."""
    armed = {"CLAUDEMESH_FAILPOINTS": failpoint, **environment}
    return _run("armed", ["-m", "tests.support.armed"], home, arguments, b"", armed)


def _run(
    forked: str,
    start: list[str],
    home: Path,
    arguments: Sequence[str],
    stdin: bytes,
    environment: Mapping[str, str],
) -> Ran:
    """Run a program of the nursery, if it has one of that name and may; else start it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
    variables = {**kept, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment}
    if forked and (nursery := nursery_for(variables)):
        return Ran(*nursery.run(arguments, variables, WAIT_S, stdin, program=forked))
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=REPOSITORY,
        env=variables,
        input=stdin,
        capture_output=True,
        timeout=WAIT_S,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def shell(home: Path, line: str, **environment: str) -> Ran:
    """Run a line of shell in which `claudemesh` is the command."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
    done = subprocess.run(
        ["sh", "-c", f'claudemesh() {{ "{sys.executable}" -m claudemesh "$@"; }}\n{line}'],
        cwd=REPOSITORY,
        env={**kept, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT_S,
    )
    return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@contextmanager
def begin(home: Path, *arguments: str, stdin: bool = False) -> Generator[subprocess.Popen[bytes]]:
    """A command that goes on by itself, ended at the end. With `stdin` it reads from a pipe."""
    environment = {**os.environ, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "claudemesh", *arguments]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()


def homes(pair: Mesh) -> tuple[Path, Path]:
    """The homes of alice and bob."""
    return pair.daemons["alice"].home, pair.daemons["bob"].home
