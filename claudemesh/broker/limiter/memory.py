"""The limiter of a broker that stands alone."""

from __future__ import annotations

import math

from claudemesh.broker.limiter.base import ALLOWED, WINDOW_S, Decision
from claudemesh.runtime.clock import Clock


class MemoryLimiter:
    """Counts in memory. Holds at most each mesh's limit of ids, of the present window only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window = -1
        self._counted: dict[str, set[tuple[str, str]]] = {}

    async def consume(self, mesh_id: str, member_id: str, client_message_id: str, *, limit: int) -> Decision:
        """Count an id once, or say when the window ends."""
        now_s = self._clock.monotonic()
        window = int(now_s // WINDOW_S)
        if window != self._window:
            self._window = window
            self._counted.clear()
        counted = self._counted.setdefault(mesh_id, set())
        entry = (member_id, client_message_id)
        if entry in counted:
            return ALLOWED
        if len(counted) >= limit:
            return Decision(False, max(1, math.ceil(((window + 1) * WINDOW_S - now_s) * 1000)))
        counted.add(entry)
        return ALLOWED
