"""Rows beside an older build, pair by pair: this tree, then the other build, in the same round."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks import client, path
from benchmarks.lab import Lab
from benchmarks.older import Alone, Build, Older, build_of, commit_of, older
from benchmarks.row import Row
from benchmarks.size import QUICK
from tests.support.processes import REPOSITORY

# The build that the specification names for the loaded path.
BASELINE = "e423227"


def rows_against(rows: Sequence[Row], build: Build) -> list[Row]:
    """Return the rows that can measure another build, beside that build. The others are named."""
    refused = [row.name for row in rows if row.alone is None]
    if refused:
        print("These rows do not measure another build, and are skipped:", file=sys.stderr)
        print(f"  {'; '.join(refused)}", file=sys.stderr)
    return [
        Row(
            row.name,
            row.unit,
            f"{build.name} ({'more' if row.sign == '>=' else 'less'} is better)",
            row.sign,
            None,
            partial(_pair, row.alone, build),
        )
        for row in rows
        if row.alone is not None
    ]


@contextmanager
def lab_against(build: Build) -> Generator[Lab]:
    """Processes of this tree and of another build. Beside an archive, this tree runs from its own archive."""
    archive = None if build.archive is None else REPOSITORY / "dist/claudemesh.pyz"
    with Lab(archive) as lab:
        _worker(build, lab)
        yield lab


def _pair(alone: Alone, build: Build, lab: Lab) -> tuple[float, float]:
    return alone(lab), _worker(build, lab).measure(alone)


def _worker(build: Build, lab: Lab) -> Older:
    return lab.shared(f"build {build.name}", partial(older, build))


def processor(lab: Lab) -> tuple[float, float]:
    """Processor time for a message end to end, beside the build of e423227; microseconds."""
    return _pair(path.processor, build_of(BASELINE), lab)


def loaded(lab: Lab) -> tuple[float, float]:
    """Messages/s end to end, beside the accept of the build of e423227."""
    return path.loaded_alone(lab), _worker(build_of(BASELINE), lab).measure(client.accepted)


def missing() -> str | None:
    """Return the reason for which the build of e423227 cannot be measured here."""
    if QUICK:
        return "--quick makes no older build"
    if commit_of(BASELINE) is None:
        return f"the history of this checkout does not hold {BASELINE} (git fetch --unshallow)"
    return None
