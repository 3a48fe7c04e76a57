"""Rate-limited log for events that a stranger can cause. Suppressed lines are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from claudemesh.runtime.logs import EventLogger
from claudemesh.runtime.rate_limit import TokenBucket

_LINES_PER_S, _LINES_BURST = 1.0, 50.0


def _now() -> float:
    return asyncio.get_running_loop().time()


class SparseLog:
    """Log with a burst of fifty lines, and one line a second after that.

    Suppressed lines are counted: the next line has their number as `unlogged`.
    """

    def __init__(self, log: EventLogger, now: Callable[[], float] = _now) -> None:
        """`now` returns monotonic seconds."""
        self._log = log
        self._now = now
        self._lines = TokenBucket(_LINES_PER_S, _LINES_BURST)
        self._unlogged = 0

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal operation, unless the rate is exceeded."""
        if self._has_room(fields):
            self._log.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log an event that an operator may have to look at, unless the rate is exceeded."""
        if self._has_room(fields):
            self._log.warning(event, **fields)

    def _has_room(self, fields: dict[str, Any]) -> bool:
        if self._lines.take(self._now()):
            self._unlogged += 1
            return False
        if self._unlogged:
            fields["unlogged"], self._unlogged = self._unlogged, 0
        return True
