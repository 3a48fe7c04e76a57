"""The rate limiter of a single broker, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from claudemesh.broker.limiter.base import (
    ALLOWED,
    BURST_MS,
    COUNTED_MS,
    EPSILON_MS,
    LONGEST_MS,
    Count,
    Decision,
    Kind,
    refused,
    wait_ms,
)
from claudemesh.runtime.clock import Clock

# A mesh, a member (none for the mesh's own bucket), and what is counted.
_Key: TypeAlias = tuple[str, str, str]
_SWEPT_ABOVE = 10_000


class MemoryLimiter:
    """Counts in memory, by the monotonic clock.

    Holds the ids of the last minute, which the limits bound, and a number for each bucket that is not full.
    """

    kind: Kind = "memory"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When each bucket will be full again, in milliseconds of the monotonic clock.
        self._full_at: dict[_Key, float] = {}
        # When each id was counted, oldest first.
        self._counted: dict[_Key, float] = {}

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Return whether all would be allowed even if none of these ids was counted yet."""
        now_ms = self._begin()
        wanted: dict[_Key, float] = {}
        for count in counts:
            for key, cost_ms in zip(_buckets(count), count.costs(), strict=True):
                wanted[key] = wanted.get(key, 0.0) + cost_ms
        return all(
            self._ahead(key, now_ms) + cost_ms <= BURST_MS + EPSILON_MS for key, cost_ms in wanted.items()
        )

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count each id once, or refuse it with its wait."""
        now_ms = self._begin()
        queued: dict[_Key, float] = {}
        return [self._count(count, now_ms, queued) for count in counts]

    async def close(self) -> None:
        """Drop the counts."""
        self._full_at.clear()
        self._counted.clear()

    def _begin(self) -> float:
        """Return the time, after dropping old ids and full buckets."""
        now_ms = self._clock.monotonic() * 1000
        while self._counted:
            oldest = next(iter(self._counted))
            if now_ms - self._counted[oldest] < COUNTED_MS:
                break
            del self._counted[oldest]
        if len(self._full_at) > _SWEPT_ABOVE:
            self._full_at = {key: at_ms for key, at_ms in self._full_at.items() if at_ms > now_ms}
        return now_ms

    def _ahead(self, key: _Key, now_ms: float) -> float:
        return min(max(self._full_at.get(key, now_ms) - now_ms, 0.0), LONGEST_MS)

    def _count(self, count: Count, now_ms: float, queued: dict[_Key, float]) -> Decision:
        entry = (count.mesh_id, count.member_id, count.client_message_id)
        if entry in self._counted:
            return ALLOWED
        keys, costs = _buckets(count), count.costs()
        aheads = [self._ahead(key, now_ms) for key in keys]
        if any(wait_ms(ahead, cost) for ahead, cost in zip(aheads, costs, strict=True)):
            waits = []
            for key, ahead, cost in zip(keys, aheads, costs, strict=True):
                waits.append(wait_ms(ahead + queued.get(key, 0.0), cost))
                queued[key] = queued.get(key, 0.0) + cost
            return refused(waits)
        for key, ahead, cost in zip(keys, aheads, costs, strict=True):
            self._full_at[key] = now_ms + min(ahead + cost, LONGEST_MS)
        self._counted[entry] = now_ms
        return ALLOWED


def _buckets(count: Count) -> tuple[_Key, _Key, _Key]:
    mesh_id, member_id = count.mesh_id, count.member_id
    return (mesh_id, "", "sends"), (mesh_id, member_id, "sends"), (mesh_id, member_id, "bytes")
