"""Guarded client connection: the input from the server is bounded like that of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.client import ClientConnection

from claudemesh.runtime.gate import MEMBER, Abuse, Gate
from claudemesh.runtime.guarded import GatedTransport


class GuardedLink(ClientConnection):
    """The library's connection behind a gate. The frames of a batch are sent in one write."""

    def __init__(self, *arguments: Any, on_limit: Callable[[str], None] = lambda limit: None, **more: Any):
        """`on_limit` gets each limit that the server has exceeded."""
        super().__init__(*arguments, **more)
        self._on_limit = on_limit
        self._gate = Gate(
            super().data_received, self._read, self._abused, self.loop, lambda: on_limit("pace")
        )
        self._gate.pace(MEMBER)
        self._gate.expect_head(b"HTTP/1.1 101")
        # The reason for which this side has closed the connection.
        self.cut_for: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put the gate in front of the library."""
        self._below = cast(asyncio.Transport, transport)
        gated = GatedTransport(self._below, self.loop, self._gate)
        super().connection_made(gated)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Pass input on, in steps."""
        self._gate.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on the remaining input of the server, then the loss of the connection."""
        self._gate.drain()
        super().connection_lost(exc)

    def _read(self, reads: bool) -> None:
        if not self._below.is_closing():
            if reads:
                self._below.resume_reading()
            else:
                self._below.pause_reading()

    def _abused(self, abuse: Abuse) -> None:
        self.cut_for = f"the broker sent too many {abuse.replace('_', ' ')}"
        self._on_limit(abuse)
        self._below.abort()
