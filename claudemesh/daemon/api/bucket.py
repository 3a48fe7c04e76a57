"""A token bucket: so many at once, so many a second after that."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """`burst` requests at once, refilled at `per_s`. Times are seconds of one monotonic clock."""

    per_s: float
    burst: float
    _left: float = -1.0
    _at: float = 0.0

    def take(self, now: float) -> float:
        """Take one and return 0, or return how long to wait until there is one."""
        if self._left < 0:
            self._left, self._at = self.burst, now
        self._left = min(self.burst, self._left + max(0.0, now - self._at) * self.per_s)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self.per_s
        self._left -= 1
        return 0.0
