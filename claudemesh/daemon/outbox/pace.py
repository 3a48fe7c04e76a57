"""The pace of the drain under a broker's rate limit: the size of the window, and the end of a hold.

A `rate_limited` answer holds back every send of this member for as long as the broker asked, because its
limits count members and meshes; the refused row stays ready, in its place. Each hold halves the window and
each accepted send widens it by one (additive increase, multiplicative decrease), so a broker that lets a few
sends through at a time is not offered a whole window to refuse.
"""

from __future__ import annotations

WINDOW = 256
# A broker that refused nothing for so long after a hold is not at its limit any more.
_QUIET_S = 5.0


class Pace:
    """The window's size, and the moment until which nothing leaves. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._size = WINDOW
        self._until_s = 0.0
        self._limited = False

    @property
    def limited_until_s(self) -> float | None:
        """The end of the limit unless the broker refuses again; None without a limit."""
        return self._until_s + _QUIET_S if self._limited else None

    def free(self, inflight: int, now_s: float) -> int:
        """Return how many rows may be taken."""
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
        """The broker has refused a send for its limit and asks to wait."""
        if now_s >= self._until_s:
            self._size = max(1, self._size // 2)
        self._limited = True
        self._until_s = max(self._until_s, now_s + wait_ms / 1000)

    def accepted(self) -> None:
        """The broker has accepted a send."""
        self._size = min(WINDOW, self._size + 1)
