"""HTTP request to an untrusted server: the answer is bounded in size and in total time."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Generator, Mapping
from contextlib import closing

from claudemesh.runtime.outward import Proxy
from claudemesh.runtime.terminal import safe

# Seconds without a byte after which the request ends, even before the deadline.
_QUIET_S = 15.0
_SHOWN_CHARACTERS = 200


class Redirected(Exception):
    """The answer is a redirect, which is not followed."""

    def __init__(self, status: int, target: str) -> None:
        super().__init__(status, target)
        self.status = status
        self.target = safe(target[:_SHOWN_CHARACTERS])

    def __str__(self) -> str:
        return f"a redirect ({self.status}) to {self.target or 'nowhere'}, which is not followed"


def exchange(
    host: str,
    port: int | None,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
    deadline_s: float,
    most_bytes: int,
) -> tuple[int, bytes]:
    """Make a request and return the status and the body, with `tls` by HTTPS, and by a proxy if one is given.

    Raise `Redirected` for a status of 300 to 399. Raise `OSError` or `HTTPException` without a complete
    answer of at most `most_bytes` within `deadline_s`. The timeout of the socket restarts with every byte,
    so a timer of its own ends the connection at the deadline.
    """
    connection = open_connection(host, port, tls, proxy, min(_QUIET_S, deadline_s))
    with closing(connection):
        connection.connect()
        with _cut_off(connection.sock, deadline_s) as late:
            try:
                connection.request(method, path, body, dict(headers or {}))
                response = connection.getresponse()
                raw = response.read(most_bytes + 1)
            except (OSError, http.client.HTTPException):
                if late.is_set():
                    raise TimeoutError(f"no whole answer within {deadline_s:g} s") from None
                raise
    if late.is_set():
        raise TimeoutError(f"no whole answer within {deadline_s:g} s")
    if len(raw) > most_bytes:
        raise http.client.HTTPException(f"the answer is larger than {most_bytes} bytes")
    if 300 <= response.status < 400:
        raise Redirected(response.status, response.getheader("Location") or "")
    return response.status, raw


def open_connection(
    host: str, port: int | None, tls: ssl.SSLContext | None, proxy: Proxy | None, timeout_s: float
) -> http.client.HTTPConnection:
    """Return a connection, which opens with its first request. `timeout_s` bounds each wait for a byte."""
    to, at = (host, port) if proxy is None else (proxy.host, proxy.port)
    made = (
        http.client.HTTPConnection(to, at, timeout=timeout_s)
        if tls is None
        else http.client.HTTPSConnection(to, at, timeout=timeout_s, context=tls)
    )
    if proxy is not None:
        made.set_tunnel(host, port, proxy.headers)
    return made


@contextlib.contextmanager
def _cut_off(link: socket.socket, seconds: float) -> Generator[threading.Event]:
    """Shut down the connection of `link` after `seconds`. The event is set when that has happened."""
    late = threading.Event()
    # A duplicate of the descriptor: another thread may not close a TLS socket.
    below = socket.socket(fileno=os.dup(link.fileno()))

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            below.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
        below.close()
