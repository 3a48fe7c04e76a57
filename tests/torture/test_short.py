"""A short torture of each engine: the artefact under one fault of every kind keeps what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.pyz import REPOSITORY, build
from tortures.plan import KINDS

# Every kind but those that need another engine. The seeds draw each kind once, and those early that take
# longest to heal: a result that is lost is asked for again after a minute, a clock jump may last as long.
EMBEDDED = tuple(name for name in KINDS if name != "postgres")
SHARED = ("kill", "pause", "partition", "half_open", "restore", "postgres", "rolling")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "arguments"),
    [
        pytest.param(EMBEDDED, ["--seed", "4229", "--minutes", "0.6"], id="embedded"),
        pytest.param(SHARED, ["--postgres", "--seed", "236", "--minutes", "0.3"], id="postgres"),
    ],
)
def test_nothing_acknowledged_is_lost_under_faults(kinds: Sequence[str], arguments: Sequence[str]) -> None:
    """Faults of each kind happened, and no check found anything."""
    build()
    command = [sys.executable, "build/torture.py", "--json", *arguments]
    print("replay: ./build/torture", *arguments, "--only", ",".join(kinds))
    done = subprocess.run(
        [*command, "--only", ",".join(kinds)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["violations"] == []
    assert {kind for kind, row in summary["faults"].items() if row["evidence"]} == set(kinds)
    figures = summary["figures"]
    assert figures["accepted"] == figures["sent"] - figures["provoked"]
    # Posts to a topic that does not exist are refused at once.
    assert figures["refused"] == figures["provoked"] > 0
