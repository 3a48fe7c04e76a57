"""Chains of automatic answers: each message of the session says how many answers led to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

# A message that was shown longer ago than this has no part in the next one.
_REMEMBERED_S: Final = 600.0
_MOST_HOPS: Final = 255


class Chain:
    """The hops of messages that the session was shown lately."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # The time at which a message with so many hops was shown last.
        self._shown: dict[int, float] = {}

    def shown(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Note messages that the session is shown."""
        now = self._now()
        self._shown |= {int(item["hops"]): now for item in items}

    def hops(self, answered: Mapping[str, Any] | None) -> int:
        """Return the hops of a message: one more than those of the message that it answers, or else of any
        that was shown lately; 0 where there is none."""
        if answered is not None:
            return min(int(answered["hops"]) + 1, _MOST_HOPS)
        oldest = self._now() - _REMEMBERED_S
        return min(max((hops for hops, at in self._shown.items() if at > oldest), default=-1) + 1, _MOST_HOPS)
