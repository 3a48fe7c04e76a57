"""Carrier of envelopes: the link to the broker, as the outbox uses it."""

from __future__ import annotations

from typing import Protocol

# An envelope that has left is answered within this time, or taken for lost.
ANSWER_DEADLINE_S = 60.0


class Carrier(Protocol):
    """The part of the link that carries envelopes."""

    @property
    def connected(self) -> bool:
        """Whether envelopes can leave now."""
        ...

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        """Hand over a frozen envelope; raises `ConnectionError` when the link is gone."""
        ...

    def reset(self, reason: str) -> None:
        """Cut the link, so that it is made anew."""
        ...
