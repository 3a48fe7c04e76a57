"""The command line as a whole process."""

from __future__ import annotations

import os
import subprocess
import time

from benchmarks.lab import Lab, median_ms
from tests.support.processes import REPOSITORY

_RUNS = 15


def warm(lab: Lab) -> tuple[float, float]:
    """Time `claudemesh.pyz send`, started as its first line does, and an idle interpreter. Milliseconds."""
    environment = {**os.environ, "CLAUDEMESH_HOME": str(lab.alice.home)}
    environment.pop("PYTHONPATH", None)
    python = subprocess.check_output(
        ["python3", "-c", "import sys; print(sys.executable)"], text=True
    ).strip()
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
