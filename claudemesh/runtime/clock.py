"""Clocks: wall and monotonic time as separate methods, and conversion to ISO 8601."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

# BOOTTIME goes on while a laptop sleeps; CLOCK_MONOTONIC on Linux does not.
_MONOTONIC_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


# The last millisecond of the year 9999.
_LAST_MS = 253_402_300_799_999


class Clock(Protocol):
    """Interface of a clock. Clocks are arguments, so that a test can set the time."""

    def wall_ms(self) -> int:
        """Return Unix time in milliseconds. It may jump in both directions."""
        ...

    def monotonic(self) -> float:
        """Return seconds since a fixed moment. It never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds since boot, with suspended time where the system counts it."""
        return time.clock_gettime(_MONOTONIC_ID)


class OffsetClock:
    """The machine's monotonic clock with the wall time of another machine, `offset_ms` away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset_ms = 0

    def wall_ms(self) -> int:
        """Return the other machine's Unix time in milliseconds."""
        return self._clock.wall_ms() + self.offset_ms

    def monotonic(self) -> float:
        """Return this machine's monotonic seconds."""
        return self._clock.monotonic()

    def follow(self, wall_ms: int) -> None:
        """Set the offset from the other machine's present time."""
        self.offset_ms = wall_ms - self._clock.wall_ms()


def iso_ms(ms: int) -> str:
    """Return Unix milliseconds as `2026-01-02T03:04:05.678Z`, cut to the years 1970 to 9999."""
    ms = min(max(ms, 0), _LAST_MS)
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def parse_iso(text: str) -> int:
    """Return the Unix milliseconds of an ISO 8601 time; without a zone it is UTC. `ValueError` otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
