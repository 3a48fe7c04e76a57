"""Balancer before several brokers: each connection goes to the next broker that answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import count

from claudemesh.runtime.services import TaskOwner
from tests.support.waiting import WAIT_S


class Balancer:
    """Listens on a port of its own; `ports` may change while it runs."""

    def __init__(self, ports: Sequence[int], port: int) -> None:
        self.ports = list(ports)
        self.port = port
        self._turn = count()
        self._tasks = TaskOwner()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        ready.set()
        await stop.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._tasks.join()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = next(self._turn)
        for offset in range(len(self.ports)):
            port = self.ports[(start + offset) % len(self.ports)]
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", port)
                self._tasks.start(self._pump(reader, back), "there")
                self._tasks.start(self._pump(there, writer), "back")
                return
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._writers.discard(writer)


@contextmanager
def balancer(ports: Sequence[int], port: int) -> Generator[Balancer]:
    """A balancer in a thread of its own."""
    made, ready = Balancer(ports, port), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(made.serve(ready, stop)))
    thread.start()
    ready.wait(WAIT_S)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
