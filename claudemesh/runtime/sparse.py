"""Rate-limited log for events that a stranger, or the other end, can cause. Suppressed lines are counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from claudemesh.runtime.logs import EventLogger
from claudemesh.runtime.rate_limit import TokenBucket

_LINES_PER_S, _LINES_BURST = 1.0, 50.0


def _now() -> float:
    return time.monotonic()


class SparseLog:
    """Log with a burst of fifty lines of each event, and one line a second after that.

    Suppressed lines are counted: the event's next line has their number as `unlogged`. Names of events are
    literals, so there are few.
    """

    def __init__(self, log: EventLogger, now: Callable[[], float] = _now) -> None:
        """`now` returns monotonic seconds."""
        self._log = log
        self._now = now
        self._lines: dict[str, TokenBucket] = {}
        self._unlogged: dict[str, int] = {}

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal operation, unless the rate is exceeded."""
        if self._has_room(event, fields):
            self._log.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log an event that an operator may have to look at, unless the rate is exceeded."""
        if self._has_room(event, fields):
            self._log.warning(event, **fields)

    def _has_room(self, event: str, fields: dict[str, Any]) -> bool:
        lines = self._lines.get(event)
        if lines is None:
            lines = self._lines[event] = TokenBucket(_LINES_PER_S, _LINES_BURST)
        if lines.take(self._now()):
            self._unlogged[event] = self._unlogged.get(event, 0) + 1
            return False
        if unlogged := self._unlogged.pop(event, 0):
            fields["unlogged"] = unlogged
        return True
