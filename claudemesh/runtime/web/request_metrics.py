"""Request metrics: count, status and duration of every request by route, never by an id or a name."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Protocol

from claudemesh.runtime.web.asgi import App, Message, Receive, Scope, Send
from claudemesh.runtime.web.routes import RouteTable


class RequestCounter(Protocol):
    """The metrics that requests are counted in."""

    def requested(self, endpoint: str, status: int, transport: str, seconds: float | None) -> None:
        """Count a request: its status (0 when no reply was begun), and its duration if it was measured."""
        ...


class RequestMetrics:
    """ASGI middleware that counts and times the requests of one listener."""

    def __init__(self, app: App, counter: RequestCounter, transport: str, table: RouteTable) -> None:
        self._app = app
        self._counter = counter
        self._transport = transport
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it once it has ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted = _StatusRecorder(send)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            # The path before decoding, because an id may hold an encoded slash.
            endpoint = self._table.label(scope["raw_path"].decode("ascii", "replace"))
            seconds = None if endpoint in self._table.uncounted else time.perf_counter() - started
            self._counter.requested(endpoint, noted.status, self._transport, seconds)


class _StatusRecorder:
    """A `send` that records the status of the reply."""

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    @property
    def __self__(self) -> object:
        """The server's own object, as on the wrapped `send`: `transport_of` finds the connection by it."""
        return getattr(self._send, "__self__", None)

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        return self._send(message)
