"""An answer that never ends, ends."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import pytest

from claudemesh.runtime.exchange import exchange
from tests.support.waiting import WAIT_S

Answer = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(answer: Answer) -> Generator[int]:
    """Answer one connection."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            link, _ = listener.accept()
            with link, suppress(OSError):
                link.recv(65_536)
                answer(link, done)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join(WAIT_S)


def ask(port: int, deadline_s: float = 10.0) -> tuple[int, bytes]:
    return exchange("127.0.0.1", port, "GET", "/", deadline_s=deadline_s, most_bytes=1000)


def in_drips(raw: bytes) -> Answer:
    """A byte now and then, for ever: each is soon enough for a timeout of the socket."""

    def drip(link: socket.socket, done: threading.Event) -> None:
        link.sendall(raw)
        while not done.wait(0.01):
            link.sendall(b"a")

    return drip


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n"]
)
def test_an_answer_in_drips_is_given_up(raw: bytes) -> None:
    with server(in_drips(raw)) as port, pytest.raises((TimeoutError, http.client.HTTPException)):
        ask(port, deadline_s=0.5)


@pytest.mark.parametrize("length", [b"", b"Content-Length: 100000000\r\n"])
def test_an_answer_without_end_is_not_kept(length: bytes) -> None:
    def pour(link: socket.socket, done: threading.Event) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while not done.is_set():
            link.sendall(b"x" * 65_536)

    with server(pour) as port, pytest.raises(http.client.HTTPException, match="larger than 1000 bytes"):
        ask(port)


def test_an_ordinary_answer_is_returned() -> None:
    def say(link: socket.socket, done: threading.Event) -> None:
        link.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

    threads = threading.active_count()
    with server(say) as port:
        assert ask(port) == (404, b"{}")
    assert threading.active_count() == threads


def test_nobody_there_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        ask(port)
