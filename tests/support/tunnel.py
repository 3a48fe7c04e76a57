"""An HTTP proxy that opens tunnels (CONNECT), and resolves every name to one port of this machine."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer

_CHUNK = 65_536


@dataclass
class Tunnels:
    """The proxy's port, the users that it knows, and the `host:port` of each tunnel that was asked for."""

    port: int
    credentials: str | None
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@contextmanager
def tunnelling(target_port: int, credentials: str | None = None) -> Generator[Tunnels]:
    """Run a proxy whose tunnels all lead to a port; with `user:password`, only for that user."""
    expected = None if credentials is None else f"Basic {b64encode(credentials.encode()).decode()}"

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            method, asked, _ = self.rfile.readline().decode().split()
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            assert method == "CONNECT"
            if headers.get("proxy-authorization") != expected:
                made.refused.append(asked)
                self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            made.asked.append(asked)
            with socket.create_connection(("127.0.0.1", target_port)) as behind:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pass_on, args=(behind, self.connection))
                back.start()
                _pass_on(self.connection, behind)
                back.join()

    class Server(ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        made = Tunnels(server.server_address[1], credentials)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
