"""Limiter: the interface, and the arithmetic of all implementations (docs/spec/broker.md, Limiter).

Each bucket holds a quarter of a minute's tokens and refills at its limit. It is kept as one number, the
time at which it will be full again: a send moves that time by its cost, and is allowed while the time stays
within the burst. A send that costs more than the whole burst is allowed when the bucket is full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

# An id that was counted is free for so long.
COUNTED_MS = 60_000
# The depth of a bucket, as the time in which it refills.
BURST_MS = 15_000
# A bucket is never further than this from being full: a clock that was set back must not close it for long.
LONGEST_MS = 60_000
# Clocks and their arithmetic round: a difference of a microsecond is none.
EPSILON_MS = 1e-3

Kind: TypeAlias = Literal["memory", "redis", "open"]
Bucket: TypeAlias = Literal["mesh", "member", "bytes"]

BUCKETS: tuple[Bucket, ...] = ("mesh", "member", "bytes")


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limits of a mesh and its members: sends and bytes per minute, stored bytes."""

    mesh_per_minute: int
    member_per_minute: int
    member_bytes_per_minute: int
    stored_bytes: int = 1 << 62
    member_stored_bytes: int = 1 << 62


@dataclass(frozen=True, slots=True)
class Count:
    """An id that wants to be counted: how many bytes it has, and what its mesh and member may send."""

    mesh_id: str
    member_id: str
    client_message_id: str
    size: int
    allowance: Allowance

    def costs(self) -> tuple[float, float, float]:
        """Return by how many milliseconds it moves each bucket, in the order of `BUCKETS`."""
        allowance = self.allowance
        return (
            60_000 / allowance.mesh_per_minute,
            60_000 / allowance.member_per_minute,
            self.size * 60_000 / allowance.member_bytes_per_minute,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a send may go on; if not, after how many milliseconds it may, and which bucket is empty."""

    allowed: bool
    retry_after_ms: int = 0
    bucket: Bucket | None = None


ALLOWED = Decision(True)


def wait_ms(ahead_ms: float, cost_ms: float) -> float:
    """Return how long a send has to wait for a bucket that is full again in `ahead_ms`; 0: it may go."""
    over_ms = ahead_ms + min(cost_ms, BURST_MS) - BURST_MS
    return over_ms if over_ms > EPSILON_MS else 0.0


def refused(waits_ms: Sequence[float]) -> Decision:
    """Return the refusal for the waits of each bucket, of which one at least is not 0."""
    longest_ms = max(waits_ms)
    return Decision(
        False, max(1, math.ceil(longest_ms - EPSILON_MS)), BUCKETS[list(waits_ms).index(longest_ms)]
    )


class Limiter(Protocol):
    """Token buckets for each mesh and each member: sends, and a member's bytes.

    An id that was counted in the last minute is free, and a refused attempt is not counted. Of several that
    are refused at once each is told when it may go if those before it go first.
    """

    @property
    def kind(self) -> Kind:
        """Return the place of the counts; `open` while the limiter cannot count and lets every send pass."""
        ...

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Tell whether all of these would be allowed for certain, without a request to a server."""
        ...

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count each id once, in order, or say how long it has to wait."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
