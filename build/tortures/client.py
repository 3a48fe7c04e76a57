"""The client of a daemon's local API: one request a connection over its unix socket, and its event stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

REQUEST_S: Final = 10.0
_LINE_LIMIT: Final = 8 << 20


class Unanswered(Exception):
    """A request got no answer: its outcome is unknown."""


@asynccontextmanager
async def _connected(sock: Path) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(sock), limit=_LINE_LIMIT)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def request(
    sock: Path, method: str, path: str, body: Any = None, timeout_s: float = REQUEST_S
) -> tuple[int, Any]:
    """Return status and JSON of a request; `Unanswered` when there is no whole answer in time."""
    try:
        async with asyncio.timeout(timeout_s), _connected(sock) as (reader, writer):
            writer.write(_spell(method, path, body))
            await writer.drain()
            status, headers = await _read_head(reader)
            length = int(headers.get("content-length", "0"))
            return status, json.loads(await reader.readexactly(length) or b"null")
    except (OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise Unanswered(f"{type(error).__name__}: {error}") from error


async def events(sock: Path, since: int) -> AsyncGenerator[tuple[str, int, Any]]:
    """Yield (event, id, data) of the stream after a position, until it ends; `Unanswered` on errors."""
    try:
        async with _connected(sock) as (reader, writer):
            writer.write(_spell("GET", "/v1/events", None, f"Last-Event-ID: {since}\r\n"))
            async with asyncio.timeout(REQUEST_S):
                status, headers = await _read_head(reader)
            if status != 200:
                raise Unanswered(f"the event stream was answered {status}")
            buffer = b""
            while chunk := await _read_chunk(reader, chunked="transfer-encoding" in headers):
                *blocks, buffer = (buffer + chunk).split(b"\n\n")
                for block in blocks:
                    fields = dict(
                        line.split(": ", 1) for line in block.decode().split("\n") if line[:1] != ":"
                    )
                    if "event" in fields:
                        yield fields["event"], int(fields.get("id", 0)), json.loads(fields["data"])
    except (OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise Unanswered(f"{type(error).__name__}: {error}") from error


def _spell(method: str, path: str, body: Any, more: str = "") -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    kind = f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n" if raw else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}{more}\r\n".encode() + raw
    )


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, value in pairs}


async def _read_chunk(reader: asyncio.StreamReader, *, chunked: bool) -> bytes:
    if not chunked:
        return await reader.read(1 << 16)
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]
