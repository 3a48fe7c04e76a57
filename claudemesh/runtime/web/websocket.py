"""uvicorn's WebSocket protocol with less memory for an idle connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from claudemesh.runtime.wake import Wake


class Messages:
    """The messages for the app, for one reader: the part of `asyncio.Queue` that uvicorn uses.

    The queue itself is made for a message and dropped behind the last one.
    """

    __slots__ = ("_waiting", "_wake")

    def __init__(self) -> None:
        self._waiting: deque[Any] | None = None
        self._wake = Wake()

    def put_nowait(self, message: Any) -> None:
        """Append a message."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._wake.set()

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._waiting

    async def get(self) -> Any:
        """Return the next message, when there is one."""
        while not self._waiting:
            self._waiting = None
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()


class LeanWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket with lean queues, whose request has no headers once it is accepted.

    One task of the app receives and one sends. A queue and an event of asyncio hold five empty queues, which
    take 4 KB. The libraries keep the headers of the request and of the reply, the former twice, for as long
    as the connection lasts: another 4 KB, and most connections are idle. The app reads headers before it
    accepts.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.queue = Messages()  # type: ignore[assignment]
        self.writable = Wake()  # type: ignore[assignment]
        self.writable.set()

    def start_keepalive(self) -> None:
        """Begin to ping, as uvicorn does right behind the handshake."""
        super().start_keepalive()
        self.request.headers.clear()
        self.response.headers.clear()
        self.scope["headers"] = []
