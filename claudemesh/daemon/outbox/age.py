"""Maximum age of an outbox row, and the clocks that measure it. A row dies before the broker forgets its
id.

A row's age is host-lived time since its acceptance (runtime/lived.py). That clock stands still while the
machine is off. So a row that has been sent is also measured by the broker's time since it was first sent.
The wall clock of this host takes no part.
"""

from __future__ import annotations

import math

from msgspec import Struct

from claudemesh.daemon.outbox.types import Now
from claudemesh.protocol.features import Features
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.lived import LivedClock

_HOURS_A_DAY = 24
_OVERRIDE_MARGIN_HOURS = 24
_LEAST_MARGIN_HOURS = 24


class MaxAgeError(ValueError):
    """The configured maximum age is longer than the broker's dedupe window allows."""


def max_age_hours(features: Features, *, default: int, cap: int, override: int | None = None) -> int:
    """Return the age in hours at which a row dies, computed from the features that the broker advertises.

    Raise `MaxAgeError` when `override` is more than the dedupe window less one day.
    """
    if features.dedupe_retention_days is None:
        return override if override is not None else min(default, cap)
    window = features.dedupe_retention_days * _HOURS_A_DAY
    if override is not None:
        if override > window - _OVERRIDE_MARGIN_HOURS:
            raise MaxAgeError(
                f"[outbox] max_age_hours_override = {override} reaches past the broker's dedupe window: "
                f"set it to {window - _OVERRIDE_MARGIN_HOURS} or less"
            )
        return override
    margin = max(_LEAST_MARGIN_HOURS, math.ceil(features.dedupe_retention_days * 0.1 * _HOURS_A_DAY))
    return window - margin


class BrokerTime:
    """The broker's time: its `server_time` of the last handshake, plus the monotonic time since."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms: float | None = None

    def heard(self, server_time_ms: int) -> None:
        """Set the broker's present time, in Unix milliseconds."""
        self._offset_ms = server_time_ms - self._clock.monotonic() * 1000

    def now_ms(self) -> int | None:
        """Return the broker's time in Unix milliseconds, or None before the first handshake of this run."""
        return None if self._offset_ms is None else int(self._offset_ms + self._clock.monotonic() * 1000)


class OutboxClocks(Struct, frozen=True):
    """The clocks of the outbox: wall time for display, lived time for ages and waits, the broker's time."""

    clock: Clock
    lived: LivedClock
    broker: BrokerTime

    def wall_of(self, lived_ms: int) -> int:
        """Convert lived milliseconds into Unix milliseconds, for display."""
        return self.clock.wall_ms() + lived_ms - self.lived.now_ms()

    def now(self) -> Now:
        """Return the times with which a transaction stamps its rows."""
        return Now(self.clock.wall_ms(), self.lived.now_ms(), self.broker.now_ms())

    def monotonic(self) -> float:
        """Return monotonic seconds, for waits within this run."""
        return self.clock.monotonic()
