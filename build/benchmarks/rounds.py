"""The rounds of the bench: every row once in each of them, so that all rows meet the same machine.

A row that fails is not measured again, and the others go on. An interrupt ends the rounds. In both cases
the rounds measured so far stay with their rows.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from benchmarks.lab import Lab
from benchmarks.older import NoBuildError, RefusedError
from benchmarks.row import Row

FAILED = 1
INTERRUPTED = 130


def measurable(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that this machine can measure. The others are named with their reasons, in one list."""
    kept, reasons = [], dict[str, list[str]]()
    for row in rows:
        reason = row.missing()
        if reason is None:
            kept.append(row)
        else:
            reasons.setdefault(reason, []).append(row.name)
    if reasons:
        print("These rows are skipped:", file=sys.stderr)
        for reason, names in reasons.items():
            print(f"  {'; '.join(names)}: {reason}", file=sys.stderr)
    return kept


def measure(
    rows: Sequence[Row],
    rounds: int,
    made: Callable[[], AbstractContextManager[Lab]],
    keep: Callable[[], None] = lambda: None,
) -> int:
    """Measure the rows, round by round; return an exit code. `keep` is called after each measurement."""
    try:
        with made() as lab:
            for number in range(rounds):
                for row in rows:
                    if row.failure is None and row.refusal is None:
                        _say(f"round {number + 1} of {rounds}: {row.name}")
                        _measure_once(row, lab)
                        keep()
    except KeyboardInterrupt:
        _say("")
        print("interrupted: the rounds until now are shown", file=sys.stderr)
        return INTERRUPTED
    except NoBuildError as error:
        _say("")
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except Exception:
        # The rounds are kept even if the processes of the lab cannot be started or stopped.
        _say("")
        traceback.print_exc()
        return FAILED
    _say("")
    return FAILED if any(row.failure is not None for row in rows) else 0


def _measure_once(row: Row, lab: Lab) -> None:
    try:
        row.rounds.append(row.measure(lab))
    except RefusedError as error:
        row.refusal = str(error)
        _say("")
        print(f"refused: {row.name}: {error}", file=sys.stderr)
    except Exception as error:
        row.failure = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        _say("")
        print(f"failed: {row.name}", file=sys.stderr)
        traceback.print_exc()


def _say(text: str) -> None:
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
