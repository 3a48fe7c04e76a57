"""The limiter of a broker that stands alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from claudemesh.broker.limiter.base import ALLOWED, WINDOW_S, Count, Decision, Kind
from claudemesh.runtime.clock import Clock


class MemoryLimiter:
    """Counts in memory. Holds at most each mesh's limit of ids, of the present window only."""

    kind: Kind = "memory"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window = -1
        self._counted: dict[str, set[tuple[str, str]]] = {}

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Tell whether even if none of these ids was counted yet all would be allowed."""
        self._begin()
        wanted = Counter(count.mesh_id for count in counts)
        return all(
            len(self._counted.get(count.mesh_id, ())) + wanted[count.mesh_id] <= count.limit
            for count in counts
        )

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count each id once, or say when the window ends."""
        now_s = self._begin()
        full = Decision(False, max(1, math.ceil(((self._window + 1) * WINDOW_S - now_s) * 1000)))
        return [ALLOWED if self._count(count) else full for count in counts]

    async def close(self) -> None:
        """Forget everything."""
        self._counted.clear()

    def _begin(self) -> float:
        """Return the time, in a window that has begun by then."""
        now_s = self._clock.monotonic()
        window = int(now_s // WINDOW_S)
        if window != self._window:
            self._window = window
            self._counted.clear()
        return now_s

    def _count(self, count: Count) -> bool:
        counted = self._counted.setdefault(count.mesh_id, set())
        entry = (count.member_id, count.client_message_id)
        if entry in counted:
            return True
        if len(counted) >= count.limit:
            return False
        counted.add(entry)
        return True
