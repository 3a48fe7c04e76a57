"""Unanswered sends of one connection, bounded in number and in bytes, and the decoding of frames."""

from __future__ import annotations

from typing import Final

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fields import INVALID_FRAME
from claudemesh.protocol.frames import Frame, decode_frame, sends_of
from claudemesh.runtime import aside

# No frame of the protocol holds more values; decoding one that does would only cost time.
MAX_VALUES: Final = 1 << 16


class Unanswered:
    """Counts unanswered sends. While it is full, the connection is not read (backpressure)."""

    __slots__ = ("_bytes", "_count", "_max_bytes", "_max_count")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._count = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether a bound is reached."""
        return self._count >= self._max_count or self._bytes >= self._max_bytes

    def add(self, size: int) -> None:
        """Count a send whose frame has `size` characters."""
        self._count += 1
        self._bytes += size

    def remove(self, size: int) -> None:
        """Count an answered send no longer."""
        self._count -= 1
        self._bytes -= size


async def decode(text: str) -> Frame:
    """Decode a frame; one with many values is decoded in a thread. `ProtocolError` invalid_frame."""
    weight = aside.weight_of(text)
    if weight <= aside.LIGHT_VALUES:
        return sends_of(text, unparsed=True) or decode_frame(text)
    return await aside.run(weight, _decode, text)


def _decode(text: str) -> Frame:
    if aside.values_in(text) > MAX_VALUES:
        raise ProtocolError(INVALID_FRAME, f"A frame may hold {MAX_VALUES} values: send less at a time.")
    return decode_frame(text)
