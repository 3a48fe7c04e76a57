"""Runs the rows of the bench, round by round, and prints ratios.

A ratio is taken inside one round, where both sides have met the same machine; what is printed is the
median of the rounds, with their range. Absolute figures on a shared machine mean little.

A row that fails is named, and the other rows go on; an interrupt ends the rounds. Each prints the rounds
until then. The exit code is 0 when every row was measured, 1 when one failed, 130 after an interrupt.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks import report
from benchmarks.against import lab_against, rows_against
from benchmarks.archive import refresh_archive
from benchmarks.lab import Lab
from benchmarks.older import NoBuildError, build_of
from benchmarks.rounds import measurable, measure
from benchmarks.table import LARGE, ROWS


def main() -> int:
    """Measure, print, and return the exit code: a row that misses its aim is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", help="only rows whose name begins so")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--large",
        action="store_true",
        help="also rows that take minutes to prepare: a grown mesh, ten million messages",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smallest sizes, to see that rows run: the figures say nothing",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the JSON in a file, after each row")
    parser.add_argument(
        "--against",
        metavar="REV|PYZ",
        help="in place of the ceilings: a revision of this repository, or another claudemesh.pyz",
    )
    options = parser.parse_args()
    rows = [
        row
        for row in (ROWS + LARGE if options.large else ROWS)
        if not options.rows or row.name.startswith(tuple(options.rows))
    ]
    if not rows:
        parser.error("no row begins so; there are: " + "; ".join(row.name for row in ROWS))
    made: Callable[[], AbstractContextManager[Lab]] = Lab
    if options.against is not None:
        try:
            build = build_of(options.against)
        except NoBuildError as error:
            parser.error(str(error))
        rows, made = rows_against(rows, build), partial(lab_against, build)
    rows = measurable(rows)
    if not rows:
        return 0
    refresh_archive()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep = partial(report.save, rows, options.save) if options.save is not None else lambda: None
    code = measure(rows, options.rounds, made, keep)
    print(report.as_json(rows) if options.json else report.table(rows))
    return code


if __name__ == "__main__":
    sys.exit(main())
