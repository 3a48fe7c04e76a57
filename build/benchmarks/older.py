"""Another build beside this one: a revision of the repository, or an archive.

A revision is unpacked below the user's cache folder, with an environment of its own where the pinned packages
differ from those that are installed here, and its claudemesh.pyz is built. A worker measures with it, in the
same round as this tree.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.size import QUICK
from tests.support.processes import REPOSITORY

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)
_STOP_S = 60.0
Alone = Callable[[Lab], float]


class NoBuildError(Exception):
    """A build that cannot be made or started, in a sentence."""


class RefusedError(Exception):
    """A row that a build does not run, in a sentence."""


@dataclass(frozen=True)
class Build:
    """The folder with the test support, the interpreter that runs it, and the file if it is an archive."""

    name: str
    tree: Path
    python: str
    archive: Path | None = None


def build_of(name: str) -> Build:
    """Return the build of a file or of a revision; a revision is made when it is not in the cache."""
    if Path(name).is_file():
        return Build(Path(name).name, REPOSITORY, sys.executable, Path(name).resolve())
    commit = commit_of(name)
    if commit is None:
        raise NoBuildError(f"{name} is neither a file nor a revision of this repository.")
    tree = _cache() / commit
    if not (tree / ".made").exists():
        _make(commit, tree)
    own = tree / ".venv/bin/python"
    return Build(name, tree, str(own) if own.exists() else sys.executable)


def commit_of(revision: str) -> str | None:
    """Return the id of a commit of this repository, or None if it is not there."""
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None


@contextmanager
def older(build: Build) -> Generator[Older]:
    """A worker with processes of that build."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(build.tree), str(REPOSITORY / "build"))),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    options = ["--quick"] if QUICK else []
    if build.archive is not None:
        options += ["--archive", str(build.archive)]
    command = [build.python, "-m", "benchmarks.worker", *options]
    process = subprocess.Popen(
        command,
        cwd=build.tree,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        made = Older(build, process)
        made.ready()
        yield made
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class Older:
    """The worker of another build."""

    def __init__(self, build: Build, process: subprocess.Popen[str]) -> None:
        self.build = build
        self._process = process
        self._measured: set[str] = set()

    def ready(self) -> None:
        """Wait until its processes run."""
        if self._next() is None:
            raise NoBuildError(f"The processes of {self.build.name} do not start; its errors stand above.")

    def measure(self, alone: Alone) -> float:
        """Return the figure of a function of this bench with the other build."""
        name = f"{alone.__module__}:{alone.__qualname__}"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(name + "\n")
            self._process.stdin.flush()
            said = self._next()
        except BrokenPipeError:
            said = None
        if said is None:
            raise NoBuildError(f"The worker of {self.build.name} has ended.")
        if "error" in said:
            first = str(said["error"]).strip().splitlines()[0]
            kind = NoBuildError if name in self._measured else RefusedError
            raise kind(f"{self.build.name} does not run this row: {first}")
        self._measured.add(name)
        return float(said["value"])

    def _next(self) -> dict[str, float | str] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found: dict[str, float | str] | None = json.loads(line) if line else None
        return found


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "claudemesh-bench"


def _make(commit: str, tree: Path) -> None:
    tree.parent.mkdir(parents=True, exist_ok=True)
    print(f"making the build of {commit[:12]} in {tree} (once; up to some minutes)", file=sys.stderr)
    shutil.rmtree(tree, ignore_errors=True)
    with tempfile.TemporaryFile() as archive:
        subprocess.run(["git", "-C", str(REPOSITORY), "archive", commit], stdout=archive, check=True)
        archive.seek(0)
        tree.mkdir()
        subprocess.run(["tar", "-x", "-C", str(tree)], stdin=archive, check=True)
    if _fits(tree / "build/requirements.txt"):
        made = subprocess.run([sys.executable, "build/build_pyz.py"], cwd=tree, stdout=sys.stderr)
    else:
        # Its own script makes the environment from its own pins.
        made = subprocess.run(["bash", "build/pyz"], cwd=tree, stdout=sys.stderr)
    if made.returncode != 0:
        raise NoBuildError(f"The build of {commit[:12]} cannot be made; its errors stand above.")
    (tree / ".made").touch()


def _fits(pins: Path) -> bool:
    """Whether the packages of this environment are those that another build pins."""
    try:
        return all(
            importlib.metadata.version(name) == wanted for name, wanted in _PIN.findall(pins.read_text())
        )
    except importlib.metadata.PackageNotFoundError:
        return False
