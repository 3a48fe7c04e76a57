"""The interface of the rate limiter, and its arithmetic (docs/spec/broker.md, Limiter).

Each token bucket holds a quarter of a minute's tokens and refills at its limit. It is kept as one number, the
time at which it will be full again (GCRA): a send moves that time by its cost, and is allowed while the time
stays within the burst. A send that costs more than the whole burst is allowed when the bucket is full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

# A counted id is free of charge for this long.
COUNTED_MS = 60_000
# The depth of a bucket, as the time in which it refills.
BURST_MS = 15_000
# Upper bound of the time until a bucket is full, so that a clock set back closes it for a minute at most.
LONGEST_MS = 60_000
# Differences below a microsecond are rounding.
EPSILON_MS = 1e-3

Kind: TypeAlias = Literal["memory", "redis", "open"]
Bucket: TypeAlias = Literal["mesh", "member", "bytes"]

BUCKETS: tuple[Bucket, ...] = ("mesh", "member", "bytes")


class Allowance(Struct, frozen=True):
    """The limits of a mesh and of each member: sends and bytes a minute, and stored bytes."""

    mesh_per_minute: int
    member_per_minute: int
    member_bytes_per_minute: int
    stored_bytes: int = 1 << 62
    member_stored_bytes: int = 1 << 62


class Count(NamedTuple):
    """A send to count: its id, its size in bytes, and the limits that it counts against."""

    mesh_id: str
    member_id: str
    client_message_id: str
    size: int
    allowance: Allowance

    def costs(self) -> tuple[float, float, float]:
        """Return the cost in milliseconds for each bucket, in the order of `BUCKETS`."""
        allowance = self.allowance
        return (
            60_000 / allowance.mesh_per_minute,
            60_000 / allowance.member_per_minute,
            self.size * 60_000 / allowance.member_bytes_per_minute,
        )


class Decision(Struct, frozen=True):
    """The decision about a send. When it is refused: the wait in milliseconds, and the empty bucket."""

    allowed: bool
    retry_after_ms: int = 0
    bucket: Bucket | None = None


ALLOWED = Decision(True)


def wait_ms(ahead_ms: float, cost_ms: float) -> float:
    """Return the wait of a send for a bucket that is full in `ahead_ms`; 0: it is allowed."""
    over_ms = ahead_ms + min(cost_ms, BURST_MS) - BURST_MS
    return over_ms if over_ms > EPSILON_MS else 0.0


def refused(waits_ms: Sequence[float]) -> Decision:
    """Return the refusal for the waits of each bucket, of which at least one is not 0."""
    longest_ms = max(waits_ms)
    return Decision(
        False, max(1, math.ceil(longest_ms - EPSILON_MS)), BUCKETS[list(waits_ms).index(longest_ms)]
    )


class Limiter(Protocol):
    """Token buckets for each mesh and each member: sends, and a member's bytes.

    An id that was counted in the last minute is free, and a refused attempt is not counted. Of several
    refused at once each is given the wait that holds when those before it are sent first.
    """

    @property
    def kind(self) -> Kind:
        """The place of the counts; `open` while they cannot be reached and every send is allowed."""
        ...

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Return whether all of these would certainly be allowed, without I/O."""
        ...

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count each id once, in order, or refuse it with its wait."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
