"""The rate limiter of a single broker, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
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
        self._counted: set[_Key] = set()
        # The same ids as they were counted together, each group with its time, oldest first. In a dictionary
        # the search for the first one passes all that were deleted before it.
        self._groups: deque[tuple[float, Collection[_Key]]] = deque()

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Return whether all would be allowed even if none of these ids was counted yet."""
        return self._fit(_wanted(counts), self._begin())

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count each id once, or refuse it with its wait."""
        now_ms = self._begin()
        if self._count_together(counts, now_ms):
            return [ALLOWED] * len(counts)
        queued: dict[_Key, float] = {}
        return [self._count(count, now_ms, queued) for count in counts]

    async def close(self) -> None:
        """Drop the counts."""
        self._full_at.clear()
        self._counted.clear()
        self._groups.clear()

    def _begin(self) -> float:
        """Return the time, after dropping old ids and full buckets."""
        now_ms = self._clock.monotonic() * 1000
        while self._groups and now_ms - self._groups[0][0] >= COUNTED_MS:
            self._counted.difference_update(self._groups.popleft()[1])
        if len(self._full_at) > _SWEPT_ABOVE:
            self._full_at = {key: at_ms for key, at_ms in self._full_at.items() if at_ms > now_ms}
        return now_ms

    def _ahead(self, key: _Key, now_ms: float) -> float:
        return min(max(self._full_at.get(key, now_ms) - now_ms, 0.0), LONGEST_MS)

    def _fit(self, wanted: Mapping[_Key, float], now_ms: float) -> bool:
        return all(
            self._ahead(key, now_ms) + cost_ms <= BURST_MS + EPSILON_MS for key, cost_ms in wanted.items()
        )

    def _count_together(self, counts: Sequence[Count], now_ms: float) -> bool:
        """Count new ids for which there is room, with one sum for each bucket. False: nothing was counted."""
        fresh = {_id_of(count) for count in counts}
        if len(fresh) != len(counts) or not self._counted.isdisjoint(fresh):
            return False
        wanted = _wanted(counts)
        if not self._fit(wanted, now_ms):
            return False
        for key, cost_ms in wanted.items():
            self._full_at[key] = now_ms + self._ahead(key, now_ms) + cost_ms
        self._counted.update(fresh)
        self._groups.append((now_ms, tuple(fresh)))
        return True

    def _count(self, count: Count, now_ms: float, queued: dict[_Key, float]) -> Decision:
        entry = _id_of(count)
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
        self._counted.add(entry)
        self._groups.append((now_ms, (entry,)))
        return ALLOWED


def _wanted(counts: Sequence[Count]) -> dict[_Key, float]:
    """Return the sum of the costs for each bucket. Sends of one connection share their allowance."""
    sends: dict[tuple[str, str, int], list[Count]] = {}
    for count in counts:
        sends.setdefault((count.mesh_id, count.member_id, id(count.allowance)), []).append(count)
    wanted: dict[_Key, float] = {}
    for together in sends.values():
        whole = together[0]._replace(size=sum([count.size for count in together]))
        each_mesh_ms, each_member_ms, bytes_ms = whole.costs()
        costs = (each_mesh_ms * len(together), each_member_ms * len(together), bytes_ms)
        for key, cost_ms in zip(_buckets(whole), costs, strict=True):
            wanted[key] = wanted.get(key, 0.0) + cost_ms
    return wanted


def _id_of(count: Count) -> _Key:
    return count.mesh_id, count.member_id, count.client_message_id


def _buckets(count: Count) -> tuple[_Key, _Key, _Key]:
    mesh_id, member_id = count.mesh_id, count.member_id
    return (mesh_id, "", "sends"), (mesh_id, member_id, "sends"), (mesh_id, member_id, "bytes")
