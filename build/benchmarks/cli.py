"""The command line as a whole process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.archive import base_python
from benchmarks.lab import Lab, median_ms
from benchmarks.size import size
from tests.support.processes import REPOSITORY

_RUNS = size(15, 1)
_FIRST_STARTS = size(5, 1)
_JOBS = size(5, 1)


def warm(lab: Lab) -> tuple[float, float]:
    """Time `claudemesh.pyz send`, started as its first line does, and an idle interpreter. Milliseconds."""
    return _timed_sends(lab)


def warm_alone(lab: Lab) -> float:
    """Time `claudemesh.pyz send`; milliseconds."""
    return _timed_sends(lab)[0]


def _timed_sends(lab: Lab) -> tuple[float, float]:
    environment = {**os.environ, "CLAUDEMESH_HOME": str(lab.alice.home)}
    environment.pop("PYTHONPATH", None)
    sends: list[float] = []
    nothings: list[float] = []
    for run in range(_RUNS + 1):
        for command, times in (
            ([*lab.archive(), "send", "bob", "hello"], sends),
            ([base_python(), "-c", "pass"], nothings),
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
    """Time the first start of claudemesh.pyz, and `python3 -m zipfile -e` of its files. Milliseconds."""
    starts, extractions = [], []
    for _ in range(_FIRST_STARTS):
        with _first_start(lab) as (cache, taken_s):
            starts.append(taken_s)
            extractions.append(_extraction_s(cache))
    return median_ms(starts), median_ms(extractions)


def first_alone(lab: Lab) -> float:
    """Time the first start of claudemesh.pyz; milliseconds."""
    starts = []
    for _ in range(_FIRST_STARTS):
        with _first_start(lab) as (_, taken_s):
            starts.append(taken_s)
    return median_ms(starts)


@contextmanager
def _first_start(lab: Lab) -> Generator[tuple[Path, float]]:
    """Start it with an empty cache; yield the cache and the seconds."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with tempfile.TemporaryDirectory(prefix="cm-first-") as folder:
        cache = Path(folder) / "cache"
        started = time.perf_counter()
        subprocess.run(
            [*lab.archive(), "version"],
            env={**environment, "CLAUDEMESH_CACHE": str(cache)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield cache, time.perf_counter() - started


def _extraction_s(files: Path) -> float:
    packed = shutil.make_archive(str(files.with_name("packed")), "zip", files)
    started = time.perf_counter()
    command = [base_python(), "-m", "zipfile", "-e", packed, str(files.with_name("extracted"))]
    subprocess.run(command, check=True)
    return time.perf_counter() - started
