"""The bench: every row of it runs against the product as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

from benchmarks.table import LARGE, ROWS
from tests.support.pyz import PYZ, REPOSITORY, build

# Rows beside other brokers and of languages, whose programs are not installed everywhere; beside a build that
# takes minutes to make; and those that run the same lines as a smaller row.
_ELSEWHERE = re.compile(r"beside |sdk .*(javascript|go|beside 64)$|end to end, loaded, |.*\b1,000,000\b")
_ROWS = [row.name for row in ROWS + LARGE if not _ELSEWHERE.match(row.name)]


def test_every_row_of_the_bench_runs() -> None:
    """With the least sizes, whose figures say nothing."""
    rows = _measured("--large", *_ROWS)
    assert [row["path"] for row in rows] == _ROWS
    # A process may happen not to grow, or to do nothing for a while.
    nothing = [row["path"] for row in rows if row["rounds"][0][0] <= 0]
    assert [path for path in nothing if "memory" not in path and "CPU" not in path] == []


def test_rows_run_beside_another_archive() -> None:
    """Here the same one, whose worker must offer what this bench asks of it."""
    wanted = ["send, one caller", "end to end, loaded, processor time", "claudemesh send"]
    rows = _measured("--against", str(PYZ), *wanted)
    assert [row["path"] for row in rows] == wanted
    assert [row["path"] for row in rows if min(row["rounds"][0]) <= 0 or row["refusal"]] == []


def test_the_archive_is_built_from_the_tree_before_it_is_measured() -> None:
    """An older archive that lies there would give its own figures. The build sees that this one is not."""
    build()
    done = _run("claudemesh mcp, memory")
    assert done.stderr.startswith("dist/claudemesh.pyz is up to date\n")


def _measured(*options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(_run(*options).stdout)
    return rows


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "build/bench.py", "--quick", "--rounds", "1", "--json", *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done
