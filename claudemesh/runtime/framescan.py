"""Scanner of WebSocket frames: counts the frames in a stream of bytes and skips their payloads."""

from __future__ import annotations

_FINAL = 0x80
_CONTROL = 0x08
_MASKED = 0x80
_LONGEST_HEAD = 14
# Fragments that a message may have, and the bytes for which it may have one more.
FRAGMENTS = 256
BYTES_PER_FRAGMENT = 64


class FrameScanner:
    """Counts the frames of one direction of one connection (RFC 6455, 5.2).

    It validates nothing: the library ends the connection at an invalid frame. `light` counts frames that
    carry nothing for the application: control frames, and data frames without payload that end no message
    or are one. `is_splintered` tells that a message came in more fragments than its size allows.
    """

    __slots__ = ("_fragments", "_head", "_message", "_skip", "frames", "is_splintered", "light")

    def __init__(self) -> None:
        self.frames = 0
        self.light = 0
        self.is_splintered = False
        self._skip = 0
        self._head = b""
        self._fragments = 0
        self._message = 0

    def scan(self, data: bytes, begin: int, end: int, most: int) -> int:
        """Count the frames whose heads are complete in `data[begin:end]`, `most` at the most.

        Returns where it stopped: at `end`, or behind the last byte that belongs to those frames. The rest
        is passed to the next call.
        """
        position = begin
        if self._head:
            position = self._finish_head(data, position, end)
            if self._head:
                return end
            most -= 1
        while True:
            if self._skip:
                if self._skip >= end - position:
                    self._skip -= end - position
                    return end
                position += self._skip
                self._skip = 0
            if most <= 0 or position >= end:
                return position
            head = _head_size(data, position, end)
            if head == 0 or position + head > end:
                self._head = data[position:end]
                return end
            self._count(data, position)
            position += head
            most -= 1

    def _finish_head(self, data: bytes, position: int, end: int) -> int:
        """Complete a head that began in an earlier piece; return the position of its payload."""
        before = len(self._head)
        joined = self._head + data[position : min(end, position + _LONGEST_HEAD)]
        head = _head_size(joined, 0, len(joined))
        if head == 0 or head > len(joined):
            self._head = joined
            return end
        self._head = b""
        self._count(joined, 0)
        return position + head - before

    def _count(self, data: bytes, position: int) -> None:
        first, length = data[position], data[position + 1] & 0x7F
        if length == 126:
            length = data[position + 2] << 8 | data[position + 3]
        elif length == 127:
            length = int.from_bytes(data[position + 2 : position + 10], "big")
        self._skip = length
        self.frames += 1
        if first & _CONTROL:
            self.light += 1
            return
        if first & _FINAL:
            # An empty last fragment ends a message, as some libraries do.
            if not length and not self._fragments:
                self.light += 1
            self._fragments = self._message = 0
            return
        if not length:
            self.light += 1
        self._fragments += 1
        self._message += length
        if self._fragments > FRAGMENTS + self._message // BYTES_PER_FRAGMENT:
            self.is_splintered = True


def _head_size(data: bytes, position: int, end: int) -> int:
    """Return the size of the head that begins here, 0 while its second byte is missing."""
    if end - position < 2:
        return 0
    second = data[position + 1]
    length = second & 0x7F
    return 2 + (4 if second & _MASKED else 0) + (0 if length < 126 else 2 if length == 126 else 8)
