"""Replies as ASGI messages: headers, pieces, and a deadline for each piece."""

from __future__ import annotations

import asyncio
from typing import Any

from claudemesh.runtime.web.asgi import Message
from claudemesh.runtime.web.replies import Reply, deny_websocket, respond
from tests.support.waiting import WAIT_S
from tests.unit.runtime.web.asgi import Exchange


async def replied(reply: Reply) -> Exchange:
    exchange = Exchange()
    await respond(exchange.send, reply)
    return exchange


async def test_a_reply_is_json_that_is_not_cached() -> None:
    """With its length, and its own headers behind the common ones."""
    exchange = await replied(Reply(201, {"a": 1}, ((b"link", b"<x>"),)))
    assert (exchange.status, exchange.body) == (201, b'{"a":1}')
    assert exchange.headers == {
        b"content-type": b"application/json",
        b"cache-control": b"no-store",
        b"x-content-type-options": b"nosniff",
        b"content-length": b"7",
        b"link": b"<x>",
    }


async def test_bytes_have_their_content_type() -> None:
    """They are sent as they are, with the same security headers."""
    exchange = await replied(Reply(200, b"text", content_type=b"text/plain"))
    assert exchange.headers[b"content-type"] == b"text/plain"
    assert exchange.headers[b"cache-control"] == b"no-store"
    assert exchange.body == b"text"


async def test_a_large_reply_is_sent_in_pieces() -> None:
    """At most 64 KiB each: small parts are joined, large ones are cut, nothing is lost."""
    parts = [b"a" * 10, b"b" * 200_000, b"c" * 10, b"d" * 10]
    exchange = await replied(Reply(200, parts))
    assert exchange.body == b"".join(parts)
    assert exchange.headers[b"content-length"] == b"%d" % len(exchange.body)
    pieces = exchange.sent[1:]
    assert max(len(piece["body"]) for piece in pieces) == 64 << 10
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]


async def test_a_reply_that_is_not_json_is_500() -> None:
    """A mistake of ours ends neither the connection nor the server."""
    exchange = await replied(Reply(200, {"a": object()}))
    assert (exchange.status, exchange.json["error"]) == (500, "internal_error")


async def test_a_websocket_is_denied_with_a_reply() -> None:
    """Before the upgrade, as JSON like any other error."""
    exchange = Exchange()
    await deny_websocket(exchange.send, Reply(503, {"error": "full", "message": "Wait."}))
    assert [message["type"] for message in exchange.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (exchange.status, exchange.json["error"]) == (503, "full")
    assert exchange.headers[b"cache-control"] == b"no-store"


class _Transport:
    """A transport whose peer does not read."""

    def __init__(self) -> None:
        self.aborted = asyncio.Event()

    def abort(self) -> None:
        self.aborted.set()


class _Cycle:
    """The server's object below `send`, as uvicorn has it."""

    def __init__(self) -> None:
        self.transport = _Transport()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.transport.aborted.wait()


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    """The connection is aborted at the deadline, unsent bytes included."""
    cycle: Any = _Cycle()
    async with asyncio.timeout(WAIT_S):
        await respond(cycle.send, Reply(200, [b"a" * 100_000]), 0.01)
    assert cycle.transport.aborted.is_set()
