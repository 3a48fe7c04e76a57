"""uvicorn's WebSocket protocol, without the head of its request behind the handshake."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class LeanWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose request has no headers once it is accepted.

    The libraries keep the headers of the request and of the reply, the former twice, for as long as the
    connection lasts. They take more than 4 KB, and most connections are idle. The app reads headers before it
    accepts.
    """

    def start_keepalive(self) -> None:
        """Begin to ping, as uvicorn does right behind the handshake."""
        super().start_keepalive()
        self.request.headers.clear()
        self.response.headers.clear()
        self.scope["headers"] = []
