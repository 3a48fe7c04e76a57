"""What a broker asks of its limiter (broker.md, Limiter)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a send may go on; if not, after how many milliseconds the window ends."""

    allowed: bool
    retry_after_ms: int = 0


ALLOWED = Decision(True)


class Limiter(Protocol):
    """Counts sends per mesh in fixed windows of 60 s; an id that was counted in a window is free."""

    async def consume(self, mesh_id: str, member_id: str, client_message_id: str, *, limit: int) -> Decision:
        """Count an id once, or say that the window is full; a refused attempt is not counted."""
        ...
