"""The gate of a daemon: a fault begins only on a link that can feel it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace
from typing import Self, cast

from tests.support.streams import listening
from tests.support.waiting import WAIT_S
from tortures.cluster import Cluster
from tortures.gate import Gate
from tortures.plan import Fault
from tortures.run import at_hand

_HEAD = b"GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
_ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
_TEXT = b'{"type":"deliver_ack"}'
_FRAME = bytes((0x81, 0x80 | len(_TEXT))) + bytes(4) + _TEXT
_DELAY = Fault(1, 0.0, "delay", "link:alice", 1.0)


class Bench:
    """A gate in front of a server that echoes, and every connection to either."""

    def __init__(self) -> None:
        self.gate = Gate("alice", lambda: [self._port])
        self.cluster = cast("Cluster", SimpleNamespace(nodes={}, gates={"alice": self.gate}))
        self._port: int
        self._stack = AsyncExitStack()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._port = await self._stack.enter_async_context(listening(self._echo))
        await self.gate.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gate.stop()
        await self._stack.aclose()
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a link as a daemon does."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gate.port)
        self._writers.append(writer)
        writer.write(_HEAD)
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def half_open(self) -> asyncio.StreamWriter:
        """Leave a link that a fault has made half-open and that the daemon still believes in."""
        _, writer = await self.dial()
        self.gate.swallow()
        self.gate.heal()
        return writer


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_fault_waits_until_traffic_passes_its_link() -> None:
    """A link that is half-open from an earlier fault does not feel it, the link that replaces it does."""

    async def check() -> None:
        async with Bench() as bench:
            gate = bench.gate
            dead = await bench.half_open()
            began = asyncio.Event()

            async def strike() -> None:
                async with at_hand(bench.cluster, _DELAY):
                    began.set()

            task = asyncio.create_task(strike())
            dead.write(_FRAME)
            await _until(lambda: gate.struck["swallowed"])
            assert not began.is_set()
            reader, writer = await bench.dial()
            writer.write(_FRAME)
            await reader.readexactly(len(_FRAME))
            await asyncio.wait_for(task, WAIT_S)
            assert began.is_set()

    asyncio.run(check())


def test_one_fault_at_a_time_is_in_force_on_a_link() -> None:
    """The end of a fault that lasts longer than was planned does not end the next one."""

    async def check() -> None:
        async with Bench() as bench, bench.gate.lock:
            gate = bench.gate
            task = asyncio.create_task(at_hand(bench.cluster, _DELAY).__aenter__())
            reader, writer = await bench.dial()
            writer.write(_FRAME)
            await reader.readexactly(len(_FRAME))
            await _until(lambda: gate.passed)
            # Several looks at the traffic, each of which lets a fault begin that does not wait for its turn.
            await asyncio.wait([task], timeout=0.5)
            assert not task.done()
            task.cancel()

    asyncio.run(check())


def test_a_frame_on_a_half_open_link_is_no_evidence_of_a_drop() -> None:
    """It would not have arrived without the drop either."""

    async def check() -> None:
        async with Bench() as bench:
            gate = bench.gate
            dead = await bench.half_open()
            gate.dropping["deliver_ack"] = 1
            dead.write(_FRAME)
            await _until(lambda: gate.struck["swallowed"] or gate.struck["dropped"])
            assert not gate.struck["dropped"]

    asyncio.run(check())
