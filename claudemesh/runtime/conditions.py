"""Conditions: failures that hold at the moment, for health, metrics and the log.

A condition begins with `begin` and ends with `end`. In between it may be reported any number of times: it
is logged once when it begins and once when it ends, with the number of reports. Its message names the
object, the reason and the remedy, because users see it unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.logs import EventLogger, get_logger


@dataclass(slots=True)
class _Condition:
    since_ms: int
    began_s: float
    message: str
    count: int = 1


class Conditions:
    """The conditions of one process, by their code. Used from the event loop's thread only.

    Codes are a small fixed set of snake_case words: each is a label of a metric. Only `since` is wall time,
    for showing; the length of a condition is measured by the monotonic clock.
    """

    def __init__(self, clock: Clock, log: EventLogger | None = None) -> None:
        self._clock = clock
        self._log = log or get_logger("conditions")
        self._active: dict[str, _Condition] = {}
        self._codes: dict[str, None] = {}

    def begin(self, code: str, message: str) -> None:
        """Report a condition. The first report is logged; later ones update the message and are counted."""
        known = self._active.get(code)
        if known is not None:
            known.message = message
            known.count += 1
            return
        self._codes[code] = None
        self._active[code] = _Condition(self._clock.wall_ms(), self._clock.monotonic(), message)
        self._log.warning("degraded", code=code, detail=message)

    def end(self, code: str) -> None:
        """End a condition, if it holds. The end is logged with the number of reports and the duration."""
        ended = self._active.pop(code, None)
        if ended is not None:
            lasted_s = round(self._clock.monotonic() - ended.began_s, 1)
            self._log.info("degraded_ended", code=code, count=ended.count, after_s=lasted_s)

    def set(self, code: str, message: str | None) -> None:
        """Report a condition, or end it when there is no message."""
        if message is None:
            self.end(code)
        else:
            self.begin(code, message)

    def holds(self, code: str) -> bool:
        """Return whether a condition holds now."""
        return code in self._active

    def items(self) -> Sequence[Mapping[str, Any]]:
        """Return the conditions as health shows them, oldest first: code, since (ISO 8601), message."""
        return [
            {"code": code, "since": iso_ms(found.since_ms), "message": found.message}
            for code, found in self._active.items()
        ]

    def states(self) -> Mapping[str, bool]:
        """Return every code that was ever reported, and whether it holds: the metric `degraded{code}`."""
        return {code: code in self._active for code in self._codes}
