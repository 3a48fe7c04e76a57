"""What a broker asks of its limiter (broker.md, Limiter)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

WINDOW_S = 60

Kind: TypeAlias = Literal["memory", "redis", "open"]


@dataclass(frozen=True, slots=True)
class Count:
    """An id that wants to be counted, and how many its mesh may have in a window."""

    mesh_id: str
    member_id: str
    client_message_id: str
    limit: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a send may go on; if not, after how many milliseconds the window ends."""

    allowed: bool
    retry_after_ms: int = 0


ALLOWED = Decision(True)


class Limiter(Protocol):
    """Counts sends per mesh in fixed windows of 60 s; an id that was counted in a window is free."""

    @property
    def kind(self) -> Kind:
        """Where it counts; `open` while it cannot, and lets everybody through."""
        ...

    def has_room(self, counts: Sequence[Count]) -> bool:
        """Tell whether it is certain, without asking anybody, that all of these would be allowed."""
        ...

    async def consume(self, counts: Sequence[Count]) -> Sequence[Decision]:
        """Count each id once, in order, or say that the window is full; a refused one is not counted."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
