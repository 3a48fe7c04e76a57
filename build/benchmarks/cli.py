"""The command line as a whole process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.lab import Lab, median_ms
from benchmarks.size import size
from tests.support.processes import REPOSITORY

_RUNS = size(15, 1)
_FIRST_STARTS = size(5, 1)
_JOBS = size(5, 1)


def warm(lab: Lab) -> tuple[float, float]:
    """Time `claudemesh.pyz send`, started as its first line does, and an idle interpreter. Milliseconds."""
    environment = {**os.environ, "CLAUDEMESH_HOME": str(lab.alice.home)}
    environment.pop("PYTHONPATH", None)
    python = _python()
    sends: list[float] = []
    nothings: list[float] = []
    for run in range(_RUNS + 1):
        for command, times in (
            ([python, "-IS", str(REPOSITORY / "dist/claudemesh.pyz"), "send", "bob", "hello"], sends),
            ([python, "-c", "pass"], nothings),
        ):
            started = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            if run:
                times.append(time.perf_counter() - started)
    return median_ms(sends), median_ms(nothings)


def job(lab: Lab) -> tuple[float, float]:
    """Time `claudemesh run -- true` from a local invite to the end of the member; the bound is 1.5 s. ms."""
    create = ["invite", "create", "--uses", "100", "--ephemeral-only", "--json"]
    environment = {
        **os.environ,
        "CLAUDEMESH_INVITE": json.loads(lab.live.cli(lab.alice, *create))["invite"],
        "CLAUDEMESH_HOME": str(lab.live.root / "job"),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "claudemesh", "run", "--", "true"]
    jobs: list[float] = []
    for run in range(_JOBS + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)
        if run:
            jobs.append(time.perf_counter() - started)
    return median_ms(jobs), 1500.0


def first(lab: Lab) -> tuple[float, float]:
    """Time the first start of claudemesh.pyz, which unpacks and compiles, and a synced copy of its files."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    python = _python()
    starts: list[float] = []
    copies: list[float] = []
    for run in range(_FIRST_STARTS):
        cache, copy = lab.live.root / f"cache-{run}", lab.live.root / f"copy-{run}"
        command = [python, "-IS", str(REPOSITORY / "dist/claudemesh.pyz"), "version"]
        started = time.perf_counter()
        subprocess.run(
            command,
            env={**environment, "CLAUDEMESH_CACHE": str(cache)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        starts.append(time.perf_counter() - started)
        started = time.perf_counter()
        _copy(cache, copy)
        copies.append(time.perf_counter() - started)
        shutil.rmtree(cache)
        shutil.rmtree(copy)
    return median_ms(starts), median_ms(copies)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    os.sync()


def _python() -> str:
    """The interpreter itself, past a shim of a version manager."""
    code = "import sys; print(sys.executable)"
    return subprocess.check_output(["python3", "-c", code], text=True).strip()
