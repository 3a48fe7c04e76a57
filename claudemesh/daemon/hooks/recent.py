"""The last runs of hooks, kept in memory for people who look at the console, and told of as events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.runtime.clock import iso_ms

# One more run replaces the oldest.
KEPT: Final = 200


class RecentRuns:
    """The last 200 runs since the start of the daemon, newest first."""

    def __init__(self, bus: Bus, wall_ms: Callable[[], int]) -> None:
        self._bus = bus
        self._wall_ms = wall_ms
        self._runs: deque[Mapping[str, Any]] = deque(maxlen=KEPT)

    def ended(self, data: Mapping[str, Any]) -> None:
        """Keep a run that has just ended, and publish it as `hook_executed`."""
        run = {**data, "ended_at": iso_ms(self._wall_ms())}
        self._runs.appendleft(run)
        self._bus.publish([BusEvent("hook_executed", run)])

    def items(self) -> list[Mapping[str, Any]]:
        """Return the runs, newest first."""
        return list(self._runs)
