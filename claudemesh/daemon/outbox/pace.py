"""Rate control of the drain: the size of its window, and the hold after a `rate_limited` answer.

A `rate_limited` answer holds back every send for as long as the broker asks, because its limits are for
members and meshes. The refused row stays ready, in its place. Each hold halves the window, and each
accepted send widens it by one (additive increase, multiplicative decrease). So a broker that accepts a few
sends at a time is not sent a whole window of them.
"""

from __future__ import annotations

WINDOW = 256
# Time without a refusal after a hold, after which the limit counts as over.
_QUIET_S = 5.0


class Pace:
    """The size of the window, and the end of a hold. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._size = WINDOW
        self._until_s = 0.0
        self._limited = False

    @property
    def limited_until_s(self) -> float | None:
        """The moment at which the limit ends unless the broker refuses again; None without a limit."""
        return self._until_s + _QUIET_S if self._limited else None

    def free(self, inflight: int, now_s: float) -> int:
        """Return the number of rows that may be taken."""
        return 0 if now_s < self._until_s else max(0, self._size - inflight)

    def held_until(self, now_s: float) -> float | None:
        """Return the end of the hold, None when there is none."""
        return self._until_s if now_s < self._until_s else None

    def recover(self, now_s: float) -> bool:
        """End the limit when its time has passed; return whether it ended now."""
        ended = self._limited and now_s >= self._until_s + _QUIET_S
        if ended:
            self._limited = False
        return ended

    def refused(self, wait_ms: int, now_s: float) -> None:
        """Note a send that the broker refused for its rate limit, with the wait that it asks for."""
        if now_s >= self._until_s:
            self._size = max(1, self._size // 2)
        self._limited = True
        self._until_s = max(self._until_s, now_s + wait_ms / 1000)

    def accepted(self) -> None:
        """Note a send that the broker accepted."""
        self._size = min(WINDOW, self._size + 1)
