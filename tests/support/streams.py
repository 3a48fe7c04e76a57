"""A server of streams in the loop of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from claudemesh.runtime.services import TaskOwner

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, path: Path | None = None) -> AsyncGenerator[int]:
    """Serve on a socket, or on a free port, which it yields; neither handlers nor connections are left.

    A writer that is open when its last reference goes is an error of the test that runs at that moment.
    """
    tasks = TaskOwner()
    writers: set[asyncio.StreamWriter] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The other side may go at any time.
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        tasks.start(carry(reader, writer), "serve")

    if path is None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
    else:
        server, port = await asyncio.start_unix_server(accept, path), 0
    try:
        yield port
    finally:
        server.close()
        await tasks.stop()
        for writer in writers:
            writer.transport.abort()
