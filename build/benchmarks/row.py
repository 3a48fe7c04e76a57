"""A row of the bench, and its rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.lab import Lab


@dataclass
class Row:
    """A path, the ceiling or the peer beside it, and the aim: `sign` is >= for rates, <= for times."""

    name: str
    unit: str
    ceiling: str
    sign: str
    # None for a row that is shown without a judgement.
    aim: float | None
    measure: Callable[[Lab], tuple[float, float]]
    # The reason for which this machine cannot measure the row, such as a program that is not installed.
    missing: Callable[[], str | None] = lambda: None
    # The measured side alone, for a row that can measure another build (`--against`).
    alone: Callable[[Lab], float] | None = None
    rounds: list[tuple[float, float]] = field(default_factory=list)
    # The error that has ended the measurements of the row.
    failure: str | None = None
    # The reason for which another build does not run the row.
    refusal: str | None = None

    @property
    def ratios(self) -> list[float]:
        """Measured against the ceiling, one for each round."""
        return [measured / ceiling for measured, ceiling in self.rounds]

    @property
    def reached(self) -> bool | None:
        """Whether the median ratio is within the aim. None without an aim."""
        if self.aim is None:
            return None
        ratio = statistics.median(self.ratios)
        return ratio >= self.aim if self.sign == ">=" else ratio <= self.aim
