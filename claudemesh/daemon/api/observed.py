"""Counts and times every request of a door, by its route: never by an id or a name."""

from __future__ import annotations

import time
from typing import Protocol

from claudemesh.daemon.api.table import RouteTable
from claudemesh.runtime.http import App, Message, Receive, Scope, Send


class RequestMetrics(Protocol):
    """Who keeps the count."""

    def requested(self, endpoint: str, status: int, transport: str, seconds: float | None) -> None:
        """A request ended with this status (0: nobody was there to hear it), after so long."""
        ...


class Observed:
    """ASGI middleware around a door's app."""

    def __init__(self, app: App, metrics: RequestMetrics, transport: str, table: RouteTable) -> None:
        self._app = app
        self._metrics = metrics
        self._transport = transport
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted = _Noted(send)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            # As it came: an id may hold an encoded slash.
            endpoint = self._table.label(scope["raw_path"].decode("ascii", "replace"))
            # A stream lasts as long as its reader wants: its duration says nothing.
            seconds = None if endpoint in self._table.streams else time.perf_counter() - started
            self._metrics.requested(endpoint, noted.status, self._transport, seconds)


class _Noted:
    """A `send` that remembers the status."""

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    @property
    def __self__(self) -> object:
        """The server's own object, as of the `send` within: `hang_up` finds the connection by it."""
        return getattr(self._send, "__self__", None)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
