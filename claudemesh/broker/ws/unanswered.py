"""The sends of one connection that are not answered yet: bounded in number and in bytes."""

from __future__ import annotations

from typing import Final

from claudemesh.protocol import Frame, ProtocolError, decode_frame
from claudemesh.protocol.fields import INVALID_FRAME
from claudemesh.runtime import aside

# No frame that the protocol has holds more; one that does would only cost time.
MAX_VALUES: Final = 1 << 16


class Pending:
    """Counts unanswered sends. When it is full, nothing more is read from the connection."""

    __slots__ = ("_bytes", "_count", "_max_bytes", "_max_count")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._count = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no other send is to be read now."""
        return self._count >= self._max_count or self._bytes >= self._max_bytes

    def add(self, size: int) -> None:
        """Count a send whose frame has so many characters."""
        self._count += 1
        self._bytes += size

    def remove(self, size: int) -> None:
        """Count it no longer: it is answered."""
        self._count -= 1
        self._bytes -= size


async def decode(text: str) -> Frame:
    """Return a frame; one of many values is parsed beside the event loop. `ProtocolError` invalid_frame."""
    weight = aside.weight_of(text)
    if weight > MAX_VALUES:
        raise ProtocolError(INVALID_FRAME, f"A frame may hold {MAX_VALUES} values: send less at a time.")
    return await aside.run(weight, decode_frame, text)
