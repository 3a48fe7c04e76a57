"""A body arrives as it was sent, in long and in short pieces."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from claudemesh.runtime.web.asgi import Receive, Scope, Send
from claudemesh.runtime.web.replies import Reply, respond
from claudemesh.runtime.web.server import HttpServer, carrying
from claudemesh.runtime.web.sockets import bind_unix
from tests.support.waiting import WAIT_S

_LONG = 48 << 10


async def _taken(folder: Path, chunks: Sequence[bytes]) -> list[object]:
    """The pieces that an app gets of a body in chunks, all of which are sent at once."""
    pieces: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with carrying(scope, 1):
            more = True
            while more:
                message = await receive()
                pieces.append(message["body"])
                more = message["more_body"]
        await respond(send, Reply(200, {}))

    server = HttpServer(app, bind_unix(folder / "sock"))
    await server.start()
    try:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_unix_connection(folder / "sock")
            writer.write(b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
    finally:
        await server.stop()
    return pieces


@pytest.mark.parametrize("sizes", [[_LONG] * 8, [_LONG, *[7] * 40, _LONG, 100], [7, _LONG, 7], [300_000]])
async def test_a_body_arrives_as_it_was_sent(tmp_path: Path, sizes: list[int]) -> None:
    chunks = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    pieces = await _taken(tmp_path, chunks)
    assert all(type(piece) is bytes for piece in pieces)
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == b"".join(chunks)
