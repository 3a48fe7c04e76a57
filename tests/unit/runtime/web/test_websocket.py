"""WebSockets of the server: an accepted one holds little while it is idle (docs/performance.md)."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import deque
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from claudemesh.runtime.web.asgi import Receive, Scope, Send
from claudemesh.runtime.web.server import HttpServer
from claudemesh.runtime.web.websocket import LeanWebSocket, Messages


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
            # The app reads them one by one, and waits for the last one.
            for text in ("hello", "again", "last"):
                await link.send(text)
            for text in ("hello", "again", "last"):
                assert await link.recv() == text
            await link.send("later")
            assert await link.recv() == "later"
    finally:
        await server.stop()
    assert seen == [b"before", [], [], []]


async def test_messages_are_received_in_order_and_hold_no_queue_when_none_waits() -> None:
    """A reader that came first gets the next message; the end of a connection is one of them."""
    messages = Messages()
    assert messages.empty()
    reading = asyncio.ensure_future(messages.get())
    await asyncio.sleep(0)
    for message in ("first", "second", "end"):
        messages.put_nowait(message)
    assert [await reading, await messages.get(), messages.empty(), await messages.get()] == [
        "first",
        "second",
        False,
        "end",
    ]
    assert messages.empty()
    reading = asyncio.ensure_future(messages.get())
    await asyncio.sleep(0)
    assert not [held for held in gc.get_referents(messages) if isinstance(held, deque)]
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    messages.put_nowait("after a reader that was cancelled")
    assert await messages.get() == "after a reader that was cancelled"
