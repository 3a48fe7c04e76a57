"""Carrier of envelopes: the link to the broker, as the outbox uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Deadline for the answer to an envelope. After it, the answer counts as lost.
ANSWER_DEADLINE_S = 60.0


class Carrier(Protocol):
    """The part of the link that carries envelopes."""

    @property
    def connected(self) -> bool:
        """Whether envelopes can leave now."""
        ...

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        """Send a frozen envelope. Raise `ConnectionError` when the link is lost."""
        ...

    async def send_envelopes(self, envelopes: Sequence[tuple[str, bytes]]) -> None:
        """Send frozen envelopes with the ids of their rows. Raise `ConnectionError` when the link is lost."""
        ...

    def reset(self, reason: str) -> None:
        """Close the link, so that a new one is opened."""
        ...
