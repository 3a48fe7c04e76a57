"""The rate limit of key rotations. Each one is told to the whole mesh, and every host keeps its statement."""

from __future__ import annotations

import math

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.rate_limit import TokenBuckets


class RotationPace:
    """The rotations that each member may make at this broker. Each one is told to the whole mesh."""

    def __init__(self, clock: Clock, a_day: int) -> None:
        self._clock = clock
        self._members = TokenBuckets(a_day / 86_400, a_day)

    def take(self, member_id: str) -> None:
        """Count a rotation. `ProtocolError` too_many_rotations when the member has made too many."""
        wait_s = self._members.of(member_id).take(self._clock.monotonic())
        if wait_s > 0:
            raise ProtocolError(
                "too_many_rotations",
                "The member has rotated its keys too often. "
                f"The next rotation is possible in {math.ceil(wait_s / 60)} minutes.",
            )
