"""The socket's two ends against a scripted ASGI server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import orjson
import pytest

from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.broker.ws.frame_socket import TOO_BIG, Closed, Closing, FrameSocket
from claudemesh.protocol.errors import CloseCode

Message = MutableMapping[str, Any]


class Transport:
    """Remembers that it was cut."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Server:
    """An ASGI server's side of one WebSocket, which takes messages or, when stuck, does not."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.sent: list[Message] = []
        self.incoming: asyncio.Queue[Message] = asyncio.Queue(16)
        self.writable = asyncio.Event()
        self.writable.set()

    async def send(self, message: Message) -> None:
        await self.writable.wait()
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self.incoming.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    async def receive(self) -> Message:
        return await self.incoming.get()


def wire_to(server: Server, **limits: Any) -> FrameSocket:
    wire = FrameSocket(server.receive, server.send, Limits(**limits), BrokerMetrics(), lambda: None)
    wire.start()
    return wire


async def test_a_close_leaves_after_what_was_put_before() -> None:
    """Waiting frames are sent, then the close with its reason; after that nothing is read."""
    server = Server()
    wire = wire_to(server)
    wire.put("a")
    wire.close(CloseCode.DRAINING, "reconnect")
    wire.put("late")
    with pytest.raises(Closed):
        await wire.read()
    await wire.end()
    assert [message.get("text") for message in server.sent] == ["a", None]
    assert server.sent[-1]["code"] == 4006
    assert orjson.loads(server.sent[-1]["reason"]) == {"kind": "broker_draining", "detail": "reconnect"}


async def test_only_the_first_close_counts() -> None:
    """The code that the peer sees is the first reason there was."""
    server = Server()
    wire = wire_to(server)
    wire.close(TOO_BIG, "first")
    wire.close(CloseCode.DRAINING)
    await wire.end()
    assert [message["code"] for message in server.sent] == [1009]


async def test_one_frame_too_many_closes_with_slow_consumer() -> None:
    """4005, and what waited is dropped."""
    server = Server()
    server.writable.clear()
    wire = wire_to(server, outgoing_frames=2)
    for text in "abc":
        wire.put(text)
    server.writable.set()
    await wire.end()
    assert [message.get("code") for message in server.sent] == [4005]


async def test_a_socket_that_takes_nothing_is_closed_after_some_checks() -> None:
    """They count from the last frame that left; an idle connection is no slow one."""
    server = Server()
    wire = wire_to(server)
    for _ in range(9):
        wire.check_progress(3)
    assert wire.is_closing is False
    server.writable.clear()
    wire.put("a")
    await asyncio.sleep(0)
    closing = []
    for _ in range(5):
        wire.check_progress(3)
        closing.append(wire.is_closing)
    assert closing == [False, False, False, False, True]
    server.writable.set()
    await wire.end()
    assert server.sent[-1]["code"] == 4005


async def test_a_frame_that_waits_at_the_first_check_has_as_much_time_as_any_other() -> None:
    """The first frame of a connection is put before any check."""
    server = Server()
    server.writable.clear()
    wire = wire_to(server)
    wire.put("a")
    for _ in range(3):
        wire.check_progress(3)
    assert wire.is_closing is False
    server.writable.set()
    wire.close(CloseCode.DRAINING)
    await wire.end()
    assert [message.get("text", message.get("code")) for message in server.sent] == ["a", 4006]


async def test_a_peer_that_does_not_even_take_the_close_is_cut_off() -> None:
    """After the grace the transport is aborted, and nothing of the connection still runs."""
    server = Server()
    server.writable.clear()
    wire = wire_to(server, close_grace_s=0.01)
    wire.put("a")
    await asyncio.sleep(0)
    wire.close(CloseCode.SLOW_CONSUMER, discard=True)
    await wire.end()
    assert server.transport.aborted
    assert server.sent == []


async def test_a_peer_that_went_away_is_not_written_to() -> None:
    """Its disconnect ends reading and writing."""
    server = Server()
    wire = wire_to(server)
    server.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    with pytest.raises(Closed):
        await wire.read()
    wire.put("a")
    await wire.end()
    assert server.sent == []


async def test_a_binary_frame_is_a_protocol_error() -> None:
    """Frames are text."""
    server = Server()
    wire = wire_to(server)
    server.incoming.put_nowait({"type": "websocket.receive", "bytes": b"x"})
    with pytest.raises(Closing) as caught:
        await wire.read()
    assert caught.value.code == 4000
    await wire.end()


async def test_what_came_before_the_peer_went_is_read_though_nothing_can_be_written_any_more() -> None:
    """The last frames of a daemon that stops are acknowledgements: else another worker gets the work."""
    server = Server()
    wire = wire_to(server)

    async def gone(message: Message) -> None:
        raise OSError("the peer has closed")

    wire._send = gone
    server.incoming.put_nowait({"type": "websocket.receive", "text": "an ack"})
    server.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    wire.put("a delivery")
    assert wire._writer is not None
    await wire._writer
    assert wire.is_closing
    assert await wire.read() == "an ack"
    with pytest.raises(Closed):
        await wire.read()
    await wire.end()
