"""Rate limits as token buckets: a burst, and a rate at which it refills."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """`burst` tokens at once, refilled at `per_s`. Times are seconds of one monotonic clock."""

    per_s: float
    burst: float
    _left: float | None = None
    _at: float = 0.0

    def take(self, now: float) -> float:
        """Take one token and return 0, or return the seconds until one is available."""
        left = self._refill(now)
        if left < 1:
            return (1 - left) / self.per_s
        self._left = left - 1
        return 0.0

    def spend(self, count: float, now: float) -> float:
        """Take `count` tokens, into debt if necessary. Return the seconds until the debt is refilled."""
        self._left = left = self._refill(now) - count
        return 0.0 if left >= 0 else -left / self.per_s

    def _refill(self, now: float) -> float:
        left = self.burst if self._left is None else self._left + max(0.0, now - self._at) * self.per_s
        self._left, self._at = min(self.burst, left), now
        return self._left


class TokenBuckets:
    """One bucket for each name. Above `most` names the least recently used are dropped."""

    def __init__(self, per_s: float, burst: float, most: int = 4096) -> None:
        self._per_s, self._burst, self._most = per_s, burst, most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, name: str) -> TokenBucket:
        """Return the bucket of a name. A new one is full."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._per_s, self._burst)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return bucket
