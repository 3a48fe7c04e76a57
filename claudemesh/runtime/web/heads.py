"""HTTP protocol of a guarded connection: limits of a request's head and body, in size, count and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from claudemesh.runtime.guarded import Guard, GuardedTransport
from claudemesh.runtime.peer import peer_of

# Host part of an ASGI scope's `client` for a process on a unix socket; the port is its process id.
PEER = "pid"
# The ASGI scope's key for the address that a request with X-Forwarded-For is counted under.
ADDRESS = "claudemesh.address"
_HEAD_LIMIT = 64 << 10
_HEAD_LINES = 256
# A body may have `_CHUNKS` chunks, and one more for each `_BYTES_PER_CHUNK` bytes of it. Trailers count as
# chunks.
_CHUNKS = 256
_BYTES_PER_CHUNK = 64
# The shortest piece of a body that is passed on without copies.
_LONG_PIECE = 32 << 10

_FORWARDED = b"x-forwarded-for"
_FORWARDED_LENGTH = len(_FORWARDED)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds within which a request's head, and then its body, must be complete."""

    head_s: float = 10.0
    body_s: float = 30.0


DEADLINES = Deadlines()


class TooMuch(Exception):
    """A request exceeds a limit. Raised inside the parser, which stops there."""


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits.

    A head has at most 64 KiB and 256 lines, and must be complete within 10 s; a body within 30 s, in chunks
    of a minimum average size. A request that exceeds a limit ends the connection, because httptools alone
    would wait and buffer without bound. Trailers of a chunked body are dropped: uvicorn would append them to
    the headers.
    """

    _guard: Guard
    _head_bytes = _lines = _chunks = _body_bytes = _body_seen = 0
    _in_head = _in_body = _is_next = _is_upgraded = False
    _awaited = ""
    _forwarded = ""
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *of_uvicorn: Any, deadlines: Deadlines) -> None:
        super().__init__(*of_uvicorn)
        self._deadlines = deadlines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        assert isinstance(transport, GuardedTransport)
        self._guard = transport.guard
        super().connection_made(transport)
        if self.client is None:
            self.client = _unix_peer(transport.below)
        self._await("head_deadline")

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_LIMIT and not self.transport.is_closing():
                self._guard.note("head_bytes")
                self.send_400_response("Request head too large.")
        else:
            self._head_bytes = 0
        # A request that arrived in one piece needs no timer.
        awaited = "body_deadline" if self._in_body else "head_deadline" if self._awaits_head() else ""
        if self._is_upgraded:
            awaited = ""
        if awaited != self._awaited or self._is_next:
            self._await(awaited)

    def on_message_begin(self) -> None:
        self._in_head, self._in_body, self._lines, self._forwarded = True, False, 0, ""
        self._is_next = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._count_chunk()
            return
        self._lines += 1
        if self._lines > _HEAD_LINES:
            self._pass("head_lines")
        if len(name) == _FORWARDED_LENGTH and name.lower() == _FORWARDED:
            self._forwarded = value.decode("latin-1")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._chunks = self._body_bytes = self._body_seen = 0
        self._guard.requested()
        if self._forwarded:
            self._guard.asks_for(self._forwarded)
            # A proxy may send the next client's request before this one is answered.
            self.scope[ADDRESS] = self._guard.address  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count a chunk; httptools calls this at the head of each."""
        self._count_chunk()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._lend(len(body))
        super().on_body(body)

    def _lend(self, size: int) -> None:
        """Let a long piece be the body that the app receives next, in place of two copies of it.

        uvicorn appends to `cycle.body`, and makes `bytes` of it for the app. Neither copies where empty bytes
        were before. Further pieces are appended in place again, or many short ones would copy all of it each.
        """
        # uvicorn declares the body as a bytearray.
        cycle: Any = self.cycle
        if cycle is None:
            return
        if not cycle.body and size >= _LONG_PIECE:
            cycle.body = b""
        elif isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._in_body, self._is_upgraded = False, True
        super().handle_websocket_upgrade()
        socket = self._guard.protocol
        if isinstance(socket, WebSocketsSansIOProtocol) and not socket.handshake_initiated:
            # The WebSocket library reads no head with a body, a line over 8 KiB, or more than 128 lines. It
            # answers nothing then, and waits for ever.
            self.send_400_response("Invalid WebSocket request.")

    def _awaits_head(self) -> bool:
        # Empty lines before a request do not begin it, but they end the keep-alive time of an idle
        # connection.
        cycle: RequestResponseCycle | None = self.cycle
        return self._in_head or cycle is None or cycle.response_complete

    def _count_chunk(self) -> None:
        self._chunks += 1
        if self._chunks > _CHUNKS + self._body_bytes // _BYTES_PER_CHUNK:
            self._pass("chunks")

    def _pass(self, limit: str) -> None:
        self._guard.note(limit)
        raise TooMuch(limit)

    def _await(self, limit: str) -> None:
        """Start the deadline named `limit`, replacing the one before; an empty name only stops it."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._awaited, self._is_next = limit, False
        if limit:
            seconds = self._deadlines.head_s if limit == "head_deadline" else self._deadlines.body_s
            self._deadline = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._guard.gate.is_held:
            # Reading is paused by this server: an earlier request of the connection is still being answered.
            self._await(self._awaited)
            return
        if self._awaited == "body_deadline" and self._has_grown():
            self._await(self._awaited)
            return
        self._guard.note(self._awaited)
        self.transport.abort()

    def _has_grown(self) -> bool:
        """Whether a body that may be long has come far enough since the last look."""
        floor, grown = self._guard.body_floor, self._body_bytes - self._body_seen
        self._body_seen = self._body_bytes
        return floor is not None and grown >= floor


def _unix_peer(transport: asyncio.Transport) -> tuple[str, int] | None:
    """Return ("pid", process id) of a unix socket's peer, or None where the kernel does not tell."""
    link = transport.get_extra_info("socket")
    peer = None if link is None else peer_of(link)
    return None if peer is None else (PEER, peer.pid)
