"""Conditions of refused sends: the broker's rate limit, and a broker that takes no send at present."""

from __future__ import annotations

from claudemesh.protocol.outcomes import RATE_LIMITED, Retry
from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.conditions import Conditions

SENDS_REFUSED = "sends_refused"


class Refusals:
    """Reports why sends wait although the link is up. The sends stay pending, and leave by themselves."""

    def __init__(self, conditions: Conditions, clock: Clock) -> None:
        self._conditions = conditions
        self._clock = clock

    def limited(self, wait_ms: int, held_s: float) -> None:
        """Report the broker's rate limit, which holds back all sends."""
        until = iso_ms(self._clock.wall_ms() + round(held_s * 1000))
        self._conditions.begin(
            RATE_LIMITED,
            "The broker's rate limit for this mesh or member is reached, and it asked to wait "
            f"{wait_ms / 1000:.1f} s: the next sends leave at {until}. They are kept and leave by "
            "themselves; send less, or ask the broker's operator for a higher limit.",
        )

    def limit_ended(self) -> None:
        """End the report of the rate limit."""
        self._conditions.end(RATE_LIMITED)

    def refused(self, outcome: Retry) -> None:
        """Report a send that the broker does not take at present."""
        reason = outcome.error if not outcome.message else f"{outcome.error}: {outcome.message.rstrip('.')}"
        self._conditions.begin(
            SENDS_REFUSED,
            f"The broker does not take sends at present ({reason}). They are kept, and sent again by "
            "themselves. `claudemesh broker status` on its host shows its state.",
        )

    def taken(self) -> None:
        """End the report of refused sends: the broker has accepted one, or none waits any more."""
        self._conditions.end(SENDS_REFUSED)
