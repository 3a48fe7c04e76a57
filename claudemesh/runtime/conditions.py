"""Conditions: failures that hold at the moment, for health, metrics and the log.

A condition begins with `begin` and ends with `end`. In between it may be reported any number of times: it
is logged once when it begins and once when it ends, with the number of reports. One that comes and goes all
the time is logged once a second at most, after a burst. Its message names the object, the reason and the
remedy, because users see it unchanged. A broker shows it to strangers: paths and texts of foreign errors are
fields of the log line alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.logs import EventLogger, get_logger
from claudemesh.runtime.rate_limit import TokenBucket

_LOGGED_PER_S, _LOGGED_BURST = 1.0, 50.0


@dataclass(slots=True)
class _Condition:
    since_ms: int
    began_s: float
    message: str
    is_logged: bool
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
        # Every code that was expected or reported, with what it may log.
        self._codes: dict[str, TokenBucket] = {}

    def expect(self, codes: Iterable[str]) -> None:
        """Show codes in the metric as 0 before their first report: an alert sees a rise from 0 only."""
        for code in codes:
            self._codes.setdefault(code, TokenBucket(_LOGGED_PER_S, _LOGGED_BURST))

    def begin(self, code: str, message: str, **logged: object) -> None:
        """Report a condition. The first report is logged; later ones update the message and are counted.

        `logged` are fields of the log line that are not shown.
        """
        known = self._active.get(code)
        if known is not None:
            known.message = message
            known.count += 1
            return
        lines = self._codes.setdefault(code, TokenBucket(_LOGGED_PER_S, _LOGGED_BURST))
        now_s = self._clock.monotonic()
        is_logged = lines.take(now_s) == 0
        self._active[code] = _Condition(self._clock.wall_ms(), now_s, message, is_logged)
        if is_logged:
            self._log.warning("degraded", code=code, detail=message, **logged)

    def reword(self, code: str, message: str) -> None:
        """Change the message of a condition that holds. That is no report of it."""
        known = self._active.get(code)
        if known is not None:
            known.message = message

    def end(self, code: str) -> None:
        """End a condition, if it holds. The end is logged with the number of reports and the duration."""
        ended = self._active.pop(code, None)
        if ended is not None and ended.is_logged:
            lasted_s = round(self._clock.monotonic() - ended.began_s, 1)
            self._log.info("degraded_ended", code=code, count=ended.count, after_s=lasted_s)

    def set(self, code: str, message: str | None, **logged: object) -> None:
        """Report a condition, or end it when there is no message."""
        if message is None:
            self.end(code)
        else:
            self.begin(code, message, **logged)

    def holds(self, code: str) -> bool:
        """Return whether a condition holds now."""
        return code in self._active

    def items(self) -> Sequence[Mapping[str, Any]]:
        """Return the conditions as health shows them, oldest first: code, since (ISO 8601), message."""
        return [
            {"code": code, "since": iso_ms(found.since_ms), "message": found.message}
            for code, found in self._active.items()
        ]

    def codes(self) -> Sequence[str]:
        """Return the codes of the conditions that hold."""
        return list(self._active)

    def states(self) -> Mapping[str, bool]:
        """Return each code that was expected or reported, and whether it holds: the metric `degraded`."""
        return {code: code in self._active for code in self._codes}
