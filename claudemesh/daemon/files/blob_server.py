"""HTTP with the broker for blobs: parts of an upload, and a download as a stream.

See docs/spec/protocol.md, Blobs.

The methods block; they run on a thread. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
from msgspec import Struct

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.exchange import open_connection
from claudemesh.runtime.outward import proxy_for, tls_context

# Seconds without a byte after which a request ends. The broker syncs a blob before it answers the last part.
_QUIET_S = 60.0
_MOST_BYTES = 1 << 16
_OFFSET = "offset"
# Refusals of a broker that works.
_SAID_ON = frozenset({"broker_busy", "insufficient_storage", "mesh_quota_exceeded"})


class OpenConnections:
    """The connections under way, which `end` ends, so that no thread waits for a broker at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._is_over = False

    def end(self) -> None:
        """End all connections, and refuse new ones."""
        with self._lock:
            self._is_over = True
            for connection in self._open:
                _hang_up(connection)

    @contextmanager
    def hold(self, connection: http.client.HTTPConnection) -> Generator[None]:
        """Open a connection, and list it while it is in use. Raise `OSError`."""
        connection.connect()
        with self._lock:
            if self._is_over:
                connection.close()
                raise ConnectionError("the daemon stops")
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _hang_up(connection: http.client.HTTPConnection) -> None:
    # A duplicate of the descriptor: another thread may not close a TLS socket.
    with suppress(OSError), socket.socket(fileno=os.dup(connection.sock.fileno())) as below:
        below.shutdown(socket.SHUT_RDWR)


class BlobServer(Struct, frozen=True):
    """The blobs of a broker at its ws:// or wss:// URL. `ca_file`: as of the link."""

    url: str
    ca_file: Path | None
    open: OpenConnections

    @contextmanager
    def connect(self) -> Generator[BlobConnection]:
        """Open a connection for some requests. Raise `OSError`."""
        parts = urlsplit(self.url)
        tls = tls_context(self.ca_file) if parts.scheme == "wss" else None
        opened = open_connection(parts.hostname or "", parts.port, tls, proxy_for(self.url), _QUIET_S)
        with self.open.hold(opened):
            connection = BlobConnection(opened, parts.path.rstrip("/"))
            try:
                yield connection
            finally:
                connection.end()


class Part(Struct, frozen=True):
    """A part of a blob with `total` bytes."""

    start: int
    length: int
    total: int


class PartAnswer(Struct, frozen=True):
    """The broker's answer to a part: the bytes that it has, and whether it has verified the whole blob."""

    offset: int
    is_complete: bool


class BlobConnection:
    """One connection. `OSError` and `HTTPException` mean that nothing is known about the request."""

    def __init__(self, connection: http.client.HTTPConnection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self._answer: http.client.HTTPResponse | None = None

    def end(self) -> None:
        """Close the answer that is read. It may hold the connection open for itself."""
        if self._answer is not None:
            self._answer.close()

    def put(self, blob_id: str, ticket: str, part: Part, pieces: Iterable[memoryview]) -> PartAnswer:
        """Send a part. Raise the broker's `ProtocolError`; a gap is answered with the offset it wants."""
        headers = {
            "Authorization": f"Bearer {ticket}",
            "Content-Length": str(part.length),
            "Content-Range": f"bytes {part.start}-{part.start + part.length - 1}/{part.total}",
            "Content-Type": "application/octet-stream",
        }
        # A broker that refuses a part answers before it is whole, and does not read the rest. The answer can
        # be read though the connection was reset behind it.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request("PUT", self._path(blob_id), pieces, headers)
        response = self._connection.getresponse()
        body = _object(response.read(_MOST_BYTES))
        if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return PartAnswer(_offset(body, part.total), False)
        if response.status >= 300:
            raise _refusal(response.status, body)
        end = part.start + part.length
        return PartAnswer(_offset(body, part.total, end), body.get("complete") is True)

    def get(self, blob_id: str, ticket: str, start: int, length: int) -> BlobStream:
        """Return `length` bytes of a blob from an offset on. Raise the broker's `ProtocolError`."""
        headers = {"Authorization": f"Bearer {ticket}", "Range": f"bytes={start}-{start + length - 1}"}
        self._connection.request("GET", self._path(blob_id), None, headers)
        self._answer = response = self._connection.getresponse()
        if response.status not in (200, 206) or (response.status == 200 and start):
            raise _refusal(response.status, _object(response.read(_MOST_BYTES)))
        return BlobStream(response, length)

    def _path(self, blob_id: str) -> str:
        return f"{self._prefix}/v1/blobs/{quote(blob_id, safe='')}"


class BlobStream:
    """The bytes of a blob as they arrive. A longer answer is not read further."""

    def __init__(self, response: http.client.HTTPResponse, length: int) -> None:
        self._response = response
        self._left = length

    @property
    def is_whole(self) -> bool:
        """Whether all bytes of the part have been read."""
        return self._left == 0

    def read(self, wanted: int) -> bytes:
        """Return as many bytes, fewer at the end of the part, and when the connection ends before it."""
        piece = self._response.read(min(self._left, wanted)) if self._left else b""
        self._left -= len(piece)
        return piece


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _offset(body: dict[str, Any], total: int, default: int = 0) -> int:
    found = body.get(_OFFSET, default)
    return found if type(found) is int and 0 <= found <= total else default


def _refusal(status: int, body: dict[str, Any]) -> ProtocolError:
    code, message = body.get("error"), body.get("message")
    if status < 500 and isinstance(code, str) and isinstance(message, str):
        return ProtocolError(code, message)
    if code in _SAID_ON and isinstance(message, str):
        return ProtocolError(code, message)
    return ProtocolError("broker_unavailable", f"The broker answers with status {status} for a file.")
