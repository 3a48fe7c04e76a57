"""The bench: every row of it runs against the product as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support.processes import REPOSITORY

# All but those beside other brokers, whose servers are not installed everywhere.
_ROWS = (
    "send",
    "accept",
    "postgres",
    "topic",
    "end to end",
    "posts",
    "messages",
    "events",
    "inbox",
    "a ",
    "file",
    "claudemesh",
)
_MORE_ROWS = ("first", "2", "idle", "ten million")


def test_every_row_of_the_bench_runs() -> None:
    """With the least sizes, whose figures say nothing."""
    options = ("--quick", "--large", "--rounds", "1", "--json")
    command = [sys.executable, "build/bench.py", *options, *_ROWS, *_MORE_ROWS]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 30
    # A process may happen not to grow.
    assert [row["path"] for row in rows if row["rounds"][0][0] <= 0 and "memory" not in row["path"]] == []
