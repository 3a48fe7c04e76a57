"""Lines of a stream as they come: a reader that notices when the stream pauses."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

_PIECE = 64 << 10


def read_lines(stream: int, longest: int) -> Iterator[tuple[int, bytes] | None]:
    """Yield the lines of a descriptor that are not empty, with their numbers; None before each wait for more.

    A line of more than `longest` bytes comes cut, and is then still longer than that.
    """
    number = 0
    begun = bytearray()
    while True:
        if not select.select([stream], [], [], 0)[0]:
            yield None
        piece = os.read(stream, _PIECE)
        *ended, rest = piece.split(b"\n")
        for end in ended:
            number += 1
            yield from _line(number, begun, end, longest)
            begun.clear()
        begun += rest[: longest + 2 - len(begun)]
        if not piece:
            yield from _line(number + 1, begun, b"", longest)
            return


def _line(number: int, begun: bytearray, end: bytes, longest: int) -> Iterator[tuple[int, bytes]]:
    line = bytes(begun) + end[: longest + 2]
    if line := line.removesuffix(b"\r"):
        yield number, line
