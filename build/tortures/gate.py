"""The gates: a TCP proxy between a daemon and the brokers, and one on a socket between a broker and Postgres.

Bytes pass as they are. WebSocket frames are read only to be counted, dropped or delayed whole; plain HTTP
and the Postgres protocol pass unread.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

_HEAD_LIMIT: Final = 1 << 16
_POSTGRES_SOCKET: Final = ".s.PGSQL.5432"
_TEXT: Final = 1
# The queue between the reader and the writer of one direction, in frames. A full queue stops the reader.
_HELD_FRAMES: Final = 4096
_ACCEPTED: Final = (200, 201)
_FINAL: Final = (400, 403, 404, 409, 413, 422)
# Number of links that ended right after a send, from which it may be overtaken (daemon/outbox/window.py).
_LOSSES: Final = 4


Opened = tuple[int, asyncio.StreamReader, asyncio.StreamWriter]


class Gate:
    """The proxy of one daemon. Its attributes may be changed at any time and hold from the next frame on."""

    # Whether a connection begins with the head of an HTTP request.
    has_heads: ClassVar[bool] = True

    def __init__(self, name: str, ports: Callable[[], Sequence[int]]) -> None:
        self.name = name
        self.port = 0
        self._ports = ports
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ended = False
        # How many faults want new connections refused.
        self.refusals = 0
        # Links that are open or opened while this is set never carry a byte again.
        self.is_swallowing = False
        self.delay_s = 0.0
        # How many more frames of a type are dropped.
        self.dropping: Counter[str] = Counter()
        # Held by the fault that is in force here: a fault may last longer than was planned.
        self.lock = asyncio.Lock()
        # How many pieces have reached the other side.
        self.passed = 0
        # Counts of the faults: cut, refused, swallowed, dropped, delayed.
        self.struck: Counter[str] = Counter()
        # client_message_ids whose frames were dropped, that the broker refused for now, or under which
        # links kept ending.
        self.detained: set[str] = set()
        self._losses: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every link."""
        if self._server is not None:
            self._server.close()
        self._is_ended = True
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self, port: int | None = None) -> None:
        """Cut every link at once, or only those to the broker on a port."""
        for link in list(self._links):
            if port is None or link.port == port:
                self.struck["cut"] += 1
                link.abort()

    def swallow(self) -> None:
        """Make every open link, and each that opens until `heal`, half-open for good."""
        self.is_swallowing = True
        for link in self._links:
            link.is_dead = True

    def heal(self) -> None:
        """Let new traffic pass; what was swallowed stays lost."""
        self.refusals = 0
        self.is_swallowing = False
        self.delay_s = 0.0
        self.dropping.clear()

    def reaches(self, port: int) -> bool:
        """Whether a link to the broker on a port is open."""
        return any(link.port == port for link in self._links)

    @property
    def links(self) -> int:
        """Return the number of open links."""
        return len(self._links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusals:
            self.struck["refused"] += 1
            writer.transport.abort()
            return
        opened = await self._open()
        if opened is None:
            writer.transport.abort()
            return
        port, there, back = opened
        link = _Link(self, port, (writer, back))
        link.is_dead = self.is_swallowing
        self._links.add(link)
        if self._is_ended:
            # It was being opened when every link was cut.
            link.abort()
        try:
            await link.run(reader, there)
        finally:
            self._links.discard(link)
            self._losses.update(link.unanswered)
            self.detained.update(m for m in link.unanswered if self._losses[m] >= _LOSSES)

    async def _open(self) -> Opened | None:
        ports = self._ports()
        self._turn += 1
        for offset in range(len(ports)):
            port = ports[(self._turn + offset) % len(ports)]
            with suppress(OSError):
                return (port, *await asyncio.open_connection("127.0.0.1", port, limit=_HEAD_LIMIT))
        return None


class DatabaseGate(Gate):
    """The proxy of one broker: a socket in a folder of its own in front of the server's."""

    has_heads = False

    def __init__(self, name: str, folder: Path, server: Path) -> None:
        super().__init__(name, tuple)
        self.folder = folder
        self._socket = server / _POSTGRES_SOCKET

    async def start(self) -> None:
        """Listen in the folder."""
        self._server = await asyncio.start_unix_server(self._accept, str(self.folder / _POSTGRES_SOCKET))

    async def _open(self) -> Opened | None:
        with suppress(OSError):
            return (0, *await asyncio.open_unix_connection(str(self._socket)))
        return None


class _Link:
    """One connection through a gate."""

    def __init__(
        self, gate: Gate, port: int, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        self.gate = gate
        self.port = port
        self.is_dead = False
        self._writers = writers
        self._is_frames = False
        # Row ids of sends, so that a result can be told to belong to a message.
        self._sent: dict[str, str] = {}

    @property
    def unanswered(self) -> Collection[str]:
        """The messages that were sent on this link and have no result."""
        return self._sent.values()

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def run(self, reader: asyncio.StreamReader, there: asyncio.StreamReader) -> None:
        """Carry bytes both ways until either side is gone; a dead link keeps the side that was not told."""
        client, broker = self._writers
        async with asyncio.TaskGroup() as group:
            group.create_task(self._direction(reader, broker, client, "up"))
            group.create_task(self._direction(there, client, broker, "down"))

    async def _direction(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        own: asyncio.StreamWriter,
        way: str,
    ) -> None:
        held: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(_HELD_FRAMES)
        sender = asyncio.ensure_future(self._deliver(held, writer))
        try:
            if self.gate.has_heads:
                await self._head(reader, held, way)
            while chunk := await self._next(reader, way):
                await self._hold(held, chunk)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            await self._finish(held, sender, writer, own)

    async def _finish(
        self,
        held: asyncio.Queue[tuple[float, bytes] | None],
        sender: asyncio.Future[None],
        writer: asyncio.StreamWriter,
        own: asyncio.StreamWriter,
    ) -> None:
        with suppress(asyncio.QueueFull):
            held.put_nowait(None)
        try:
            await sender
        finally:
            sender.cancel()
            # The far side of a half-open link gets nothing, not even the end.
            (own if self.is_dead else writer).close()

    async def _head(
        self, reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes] | None], way: str
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if way == "up":
            self._is_frames = b"upgrade: websocket" in head.lower()
        await self._hold(held, head)

    async def _next(self, reader: asyncio.StreamReader, way: str) -> bytes:
        """Return the next piece to forward, b"" at the end. Dropped frames are passed over."""
        if not self._is_frames:
            return await reader.read(1 << 16)
        while True:
            try:
                raw, opcode, payload = await read_frame(reader)
            except asyncio.IncompleteReadError:
                return b""
            if opcode != _TEXT or not self._is_dropped(payload, way):
                return raw

    async def _hold(self, held: asyncio.Queue[tuple[float, bytes] | None], chunk: bytes) -> None:
        if self.is_dead:
            self.gate.struck["swallowed"] += 1
            return
        if self.gate.delay_s:
            self.gate.struck["delayed"] += 1
        await held.put((asyncio.get_running_loop().time() + self.gate.delay_s, chunk))

    async def _deliver(
        self, held: asyncio.Queue[tuple[float, bytes] | None], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while (item := await held.get()) is not None:
            due, chunk = item
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if self.is_dead:
                continue
            try:
                writer.write(chunk)
                await writer.drain()
            except OSError:
                return
            self.gate.passed += 1

    def _is_dropped(self, payload: bytes, way: str) -> bool:
        try:
            frame = json.loads(payload)
            kind = str(frame["type"])
        except (ValueError, TypeError, KeyError):
            return False
        messages = self._note(frame, kind) if way == "up" or kind.startswith("send_result") else []
        # A batch is named in the plural.
        name = kind.removesuffix("s")
        # Traffic that a half-open link swallows is no evidence of a drop.
        if self.is_dead or not self.gate.dropping[name]:
            return False
        self.gate.dropping[name] -= 1
        self.gate.struck["dropped"] += 1
        self.gate.detained.update(messages)
        return True

    def _note(self, frame: dict[str, Any], kind: str) -> list[str]:
        """Remember the message of a send, and return the messages that a frame is about."""
        found = []
        for item in frame.get("items", [frame]):
            if "envelope" in item:
                message = str(item["envelope"]["client_message_id"])
                self._sent[str(item.get("id"))] = message
            elif kind.startswith("send_result"):
                message = self._sent.pop(str(item.get("id")), "")
                if item.get("status") not in (*_ACCEPTED, *_FINAL):
                    self.gate.detained.add(message)
            else:
                continue
            found.append(message)
        return found


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """Read one frame: as it came, its opcode (0 in a fragment), and its unmasked payload."""
    raw = await reader.readexactly(2)
    length = raw[1] & 0x7F
    if length >= 126:
        extended = await reader.readexactly(2 if length == 126 else 8)
        raw, length = raw + extended, int.from_bytes(extended, "big")
    mask = await reader.readexactly(4) if raw[1] & 0x80 else b""
    payload = await reader.readexactly(length)
    whole = raw + mask + payload
    opcode = raw[0] & 0x0F if raw[0] & 0x80 else 0
    if opcode != _TEXT or not mask:
        return whole, opcode, payload
    pad = (mask * (length // 4 + 1))[:length]
    plain = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")
    return whole, opcode, plain
