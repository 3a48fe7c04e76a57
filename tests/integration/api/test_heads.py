"""Heads of requests are bounded in size and time, before anything of ours sees them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from claudemesh.runtime.web.heads import Deadlines
from tests.integration.api.served import parse, served, until

POST = b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEAD = b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "rest", [b"X-A: " + b"a" * (16 << 20), b"X: y\r\n" * 2_000_000], ids=["long", "many"]
)
async def test_a_huge_head_is_refused(tmp_path: Path, rest: bytes) -> None:
    """400 and the end of the connection, long before it is whole; others are answered."""
    async with served(tmp_path) as daemon:
        received = await daemon.raw(HEAD + rest + b"\r\n\r\n")
        assert received[:12] in (b"", b"HTTP/1.1 400")
        assert (await daemon.ask("GET", "/v1/version")).status == 200


async def test_an_ordinary_large_head_is_taken(tmp_path: Path) -> None:
    """32 KiB of headers are unusual and fine."""
    async with served(tmp_path) as daemon:
        received = await daemon.raw(HEAD + b"X-A: " + b"a" * (32 << 10) + b"\r\n\r\n")
        assert parse(received).status == 200


@pytest.mark.parametrize(
    "begun",
    [b"", b"\r\n", b"GET /v1/ver", HEAD + b"\r\n" + b"GET /v1"],
    ids=["none", "an empty line", "some", "next"],
)
async def test_a_head_that_does_not_come_ends_the_connection(tmp_path: Path, begun: bytes) -> None:
    """An idle connection, half a head, half of the next one: none of them holds a connection."""
    async with served(tmp_path, deadlines=Deadlines(head_s=0.05)) as daemon:
        reader, writer = await daemon.connect()
        writer.write(begun)
        # The deadline may come before the server has read everything.
        with contextlib.suppress(ConnectionResetError):
            await reader.read(-1)
        writer.close()


@pytest.mark.parametrize(
    "begun", [b"Content-Length: 9\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"]
)
async def test_a_body_that_does_not_come_ends_the_connection(tmp_path: Path, begun: bytes) -> None:
    """Its place is free again; a request that is whole has all the time that it needs."""
    async with served(tmp_path, deadlines=Deadlines(body_s=1)) as daemon:
        reader, writer = await daemon.connect()
        writer.write(POST + begun)
        with contextlib.suppress(ConnectionResetError):
            await reader.read(-1)
        writer.close()
        guards: Any = daemon.app
        await until(lambda: guards.in_flight == 0)
        waiting = await daemon.ask("POST", "/v1/send?wait_ms=200", {"to": "bob", "message": "hi"})
        assert waiting.status == 202


@pytest.mark.parametrize("size", [1, 7, 63])
async def test_a_body_in_tiny_chunks_is_refused(tmp_path: Path, size: int) -> None:
    """Each costs as much as a large one."""
    async with served(tmp_path) as daemon:
        chunk = b"%x\r\n%b\r\n" % (size, b" " * size)
        received = await daemon.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20_000)
        assert received[:12] in (b"", b"HTTP/1.1 400")


@pytest.mark.parametrize("size", [64, 4096])
async def test_a_body_in_fair_chunks_is_taken(tmp_path: Path, size: int) -> None:
    async with served(tmp_path) as daemon:
        body = json.dumps({"to": "bob", "message": "x" * 200_000}).encode()
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size])
            for at in range(0, len(body), size)
        )
        received = await daemon.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert parse(received).status == 202


async def test_trailers_are_no_headers(tmp_path: Path) -> None:
    """Trailers of a chunked body have no effect."""
    async with served(tmp_path) as daemon:
        body = json.dumps({"to": "bob", "message": "hi", "client_message_id": "mine"}).encode()
        head = b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        chunks = b"%x\r\n%b\r\n0\r\nIdempotency-Key: other\r\nHost: evil\r\n\r\n" % (len(body), body)
        received = await daemon.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert parse(received).json["client_message_id"] == "mine"


async def test_empty_lines_do_not_hold_a_connection(tmp_path: Path) -> None:
    """After an answer too, where they end the time that an idle connection has."""
    async with served(tmp_path, deadlines=Deadlines(head_s=2)) as daemon:
        reader, writer = await daemon.connect()
        writer.write(HEAD + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            await reader.read(-1)
        writer.close()
