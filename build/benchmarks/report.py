"""The rounds of the rows as a table or as JSON."""

from __future__ import annotations

import json
import platform
import sqlite3
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.row import Row

_HEAD = ("path", "measured", "ceiling", "ratio (range)", "aim")


def table(rows: Sequence[Row]) -> str:
    """A line for each row that has a round: medians, and the ratio with its range. Failures come last."""
    lines = [_HEAD, *(_line(row) for row in rows if row.rounds)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    said = [
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}",
        "durable means: fsync'd before the acknowledgement, on both sides",
        "",
        *(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ),
        *(f"failed: {row.name}: {row.failure}" for row in rows if row.failure is not None),
        *(f"refused: {row.name}: {row.refusal}" for row in rows if row.refusal is not None),
        *(
            f"not measured: {row.name}"
            for row in rows
            if row.failure is None and row.refusal is None and not row.rounds
        ),
    ]
    return "\n".join(said)


def as_json(rows: Sequence[Row]) -> str:
    """Every round's figures."""
    found = [
        {
            "path": row.name,
            "unit": row.unit,
            "ceiling": row.ceiling,
            "aim": None if row.aim is None else f"{row.sign} {row.aim:g}",
            "reached": row.reached if row.rounds else None,
            "rounds": row.rounds,
            "failure": row.failure,
            "refusal": row.refusal,
        }
        for row in rows
    ]
    return json.dumps(found, indent=2)


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the JSON to a file, which is replaced in one step."""
    written = path.with_name(f"{path.name}.new")
    written.write_text(as_json(rows) + "\n")
    written.replace(path)


def _line(row: Row) -> tuple[str, ...]:
    measured, ceiling = (statistics.median(side) for side in zip(*row.rounds, strict=True))
    ratios = row.ratios
    word = "reached" if row.reached else "NOT reached"
    judged = "" if row.aim is None else f"{row.sign} {row.aim:g} {word}"
    return (
        row.name,
        f"{measured:,.{_digits(measured)}f} {row.unit}",
        f"{ceiling:,.{_digits(ceiling)}f}  {row.ceiling}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        judged,
    )


def _digits(value: float) -> int:
    return 0 if value >= 100 else 2 if value < 10 else 1
