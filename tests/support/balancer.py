"""Balancer before several brokers: each connection goes to the next broker that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count

from tests.support.background import background


class Balancer:
    """Listens on a port of its own; `ports` may change while it runs."""

    def __init__(self, ports: Sequence[int], port: int) -> None:
        self.ports = list(ports)
        self.port = port
        self._turn = count()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Balancer]:
        """Listen; the connections that are left at the end are cut by the loop's owner."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = next(self._turn)
        for offset in range(len(self.ports)):
            port = self.ports[(start + offset) % len(self.ports)]
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
                return
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                while piece := await reader.read(1 << 16):
                    writer.write(piece)
                    await writer.drain()
            finally:
                writer.close()


@contextmanager
def balancer(ports: Sequence[int], port: int) -> Generator[Balancer]:
    """A balancer in a thread of its own."""
    with background(Balancer(ports, port).serving()) as made:
        yield made.value
