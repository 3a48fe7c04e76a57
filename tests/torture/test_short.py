"""A short torture: the artefact under faults of two fixed seeds keeps what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.pyz import REPOSITORY, build

KINDS = ("pause", "delay", "drop", "emfile")
# Long enough for one fault of each kind; the checks wait for the cluster, not for a time.
MINUTES = "0.3"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 23])
def test_nothing_acknowledged_is_lost_under_faults(seed: int) -> None:
    """Faults of each kind happened, and no check found anything."""
    build()
    command = [sys.executable, "build/torture.py", "--json", "--seed", str(seed), "--minutes", MINUTES]
    done = subprocess.run(
        [*command, "--only", ",".join(KINDS)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["violations"] == []
    assert {kind for kind, row in summary["faults"].items() if row["evidence"]} == set(KINDS)
    figures = summary["figures"]
    assert figures["accepted"] == figures["sent"] - figures["provoked"]
    # Posts to a topic that does not exist are refused at once.
    assert figures["refused"] == figures["provoked"] > 0
