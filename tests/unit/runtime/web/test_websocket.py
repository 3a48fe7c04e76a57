"""WebSockets of the server: an accepted one keeps no head of its request (docs/performance.md)."""

from __future__ import annotations

import socket
from typing import Any

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from claudemesh.runtime.web.asgi import Receive, Scope, Send
from claudemesh.runtime.web.server import HttpServer
from claudemesh.runtime.web.websocket import LeanWebSocket


async def test_an_accepted_websocket_keeps_no_headers_and_carries_frames() -> None:
    """The app reads them before it accepts."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(dict(scope["headers"])[b"x-known"])
        await send({"type": "websocket.accept", "subprotocol": "echo"})
        protocol = getattr(send, "__self__", None)
        assert isinstance(protocol, LeanWebSocket)
        seen.extend([scope["headers"], list(protocol.request.headers), list(protocol.response.headers)])
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, listener, ws_max_size=1 << 20)
    await server.start()
    try:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        async with connect(
            url, subprotocols=[Subprotocol("echo")], additional_headers={"X-Known": "before"}
        ) as link:
            assert link.subprotocol == "echo"
            await link.send("hello")
            assert await link.recv() == "hello"
    finally:
        await server.stop()
    assert seen == [b"before", [], [], []]
