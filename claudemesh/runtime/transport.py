"""Transport that joins small writes into one system call."""

from __future__ import annotations

import asyncio
from typing import Any

_FLUSH_BYTES = 64 << 10


class JoinedWrites:
    """Asyncio transport whose writes of one turn of the event loop leave together, at most 64 KiB.

    An HTTP head and its body, or the frames of a batch, would each cost a system call of their own.
    Everything but writing is the wrapped transport's.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0

    @property
    def below(self) -> asyncio.Transport:
        """The wrapped transport."""
        return self._transport

    def write(self, data: bytes) -> None:
        """Add bytes to the write of this turn of the loop."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _FLUSH_BYTES:
            self._flush()

    def write_eof(self) -> None:
        """Close the writing side after the bytes that wait."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close after the bytes that wait."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting, self._size = self._waiting, [], 0
        if not self._transport.is_closing():
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
