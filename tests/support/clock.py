"""A clock that a test moves by hand."""

from __future__ import annotations


class ManualClock:
    """Wall and monotonic time that stand still until told otherwise; the wall may also jump alone."""

    def __init__(self, wall_ms: int = 1_780_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic = 1000.0

    def wall_ms(self) -> int:
        return self._wall_ms

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, *, hours: float = 0, seconds: float = 0) -> None:
        """Let time pass on both clocks."""
        passed_s = hours * 3600 + seconds
        self._monotonic += passed_s
        self._wall_ms += round(passed_s * 1000)

    def jump(self, *, hours: float) -> None:
        """Set the wall clock alone, as root can."""
        self._wall_ms += round(hours * 3_600_000)
