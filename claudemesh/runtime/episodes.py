"""Reports of limits that are reached repeatedly: each is counted, an episode is logged once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from claudemesh.runtime.logs import EventLogger

# An episode ends when its limit was not reached for this time.
_QUIET_S = 60.0


@dataclass(slots=True)
class _Episode:
    last: float
    count: int = 1


class Episodes:
    """Reports of limits. Each is counted; an episode is logged when it begins, and with the count at its end.

    Names of limits are a small fixed set: each is a label of a metric.
    """

    def __init__(
        self, log: EventLogger, count: Callable[[str], None] = lambda limit: None, quiet_s: float = _QUIET_S
    ) -> None:
        self._log = log
        self._count = count
        self._quiet_s = quiet_s
        self._running: dict[str, _Episode] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, limit: str, **fields: object) -> None:
        """Report that a limit was reached; the fields are those of the line that begins the episode."""
        self._count(limit)
        loop = asyncio.get_running_loop()
        episode = self._running.get(limit)
        if episode is not None:
            episode.count += 1
            episode.last = loop.time()
            return
        self._running[limit] = _Episode(loop.time())
        self._log.warning("limit_reached", limit=limit, **fields)
        if self._timer is None:
            self._timer = loop.call_later(self._quiet_s, self._look)

    def close(self) -> None:
        """End every episode."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for limit in list(self._running):
            self._end(limit)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for limit, episode in list(self._running.items()):
            if loop.time() - episode.last >= self._quiet_s:
                self._end(limit)
        self._timer = loop.call_later(self._quiet_s, self._look) if self._running else None

    def _end(self, limit: str) -> None:
        self._log.info("limit_reached_no_more", limit=limit, count=self._running.pop(limit).count)
