"""The blobs of a broker as a test wants them: an HTTP server on the loopback, and the calls on the link."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson

from claudemesh.daemon.files.blob_server import BlobServer, OpenConnections
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import Read

T = TypeVar("T")
Handle = Callable[[BaseHTTPRequestHandler], None]
Given = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def answer(request: BaseHTTPRequestHandler, status: int, body: Mapping[str, Any]) -> None:
    """Answer a request with JSON, and read what it sends before."""
    request.rfile.read(int(request.headers.get("content-length") or 0))
    content = orjson.dumps(body)
    request.send_response(status)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


class BlobHost:
    """A broker that answers each request for bytes by `handle`, and each call by `replies`.

    A reply is the object of `ok`, a function of the parameters that returns it, or the error that the call
    raises. `calls` has the calls as they came.
    """

    def __init__(self, handle: Handle) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                handle(self)

            def do_GET(self) -> None:
                handle(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.replies: dict[str, Mapping[str, Any] | Given | ProtocolError] = {}
        self.calls: list[tuple[str, Mapping[str, Any]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def server(self) -> BlobServer:
        """Return the blobs as a daemon uses them."""
        return BlobServer(f"ws://127.0.0.1:{self._server.server_port}", None, OpenConnections())

    async def ask(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        """Answer a call."""
        self.calls.append((method, params))
        reply = self.replies.get(method, {})
        if isinstance(reply, ProtocolError):
            raise reply
        return read(dict(reply(params) if callable(reply) else reply))
