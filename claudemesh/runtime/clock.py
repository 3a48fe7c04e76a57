"""Wall and monotonic time, apart so that nobody mixes them up, and ISO 8601 for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

# BOOTTIME goes on while a laptop sleeps; CLOCK_MONOTONIC on Linux does not.
_MONOTONIC_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


# The last millisecond of the year 9999.
_LAST_MS = 253_402_300_799_999


class Clock(Protocol):
    """Time as an argument, so that a test can move it."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds; may jump either way."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since boot, suspended time included where the system tells it."""
        return time.clock_gettime(_MONOTONIC_ID)


class OffsetClock:
    """The machine's clocks with the time of day of somebody else, as far as `offset_ms` says it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset_ms = 0

    def wall_ms(self) -> int:
        """Unix time in milliseconds, as the other tells it."""
        return self._clock.wall_ms() + self.offset_ms

    def monotonic(self) -> float:
        """The machine's own."""
        return self._clock.monotonic()

    def follow(self, wall_ms: int) -> None:
        """The other's clock says this now."""
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
