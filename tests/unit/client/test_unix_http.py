"""One exchange by HTTP with the daemon: an answer is whole, or there is none."""

from __future__ import annotations

import socket
import threading

import pytest

from claudemesh.client.unix_http import BadAnswer, exchange

WHOLE = b"HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\nX-Other: a: b\r\n\r\n{ }\n"


def answered(*pieces: bytes, target: str = "/v1/x", body: bytes | None = b"{}") -> tuple[int, bytes, bytes]:
    """Status and body, and the request, of an exchange whose server writes these pieces and closes."""
    near, far = socket.socketpair()
    asked: list[bytes] = []

    def serve() -> None:
        with far:
            asked.append(far.recv(65_536))
            for piece in pieces:
                far.sendall(piece)

    thread = threading.Thread(target=serve)
    with near:
        thread.start()
        try:
            status, raw = exchange(near, "POST", target, body, {"Content-Type": "application/json"})
        finally:
            thread.join()
    return status, raw, asked[0]


def test_an_answer_is_read_whatever_its_pieces() -> None:
    """Each byte of it may come alone."""
    one_by_one = [WHOLE[at : at + 1] for at in range(len(WHOLE))]
    assert answered(WHOLE)[:2] == answered(*one_by_one)[:2] == (202, b"{ }\n")
    assert answered(b"HTTP/1.1 204 No Content\r\n\r\n")[:2] == (204, b"")
    assert answered(b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end")[:2] == (200, b"until the end")


def test_a_refusal_of_a_long_request_is_read_although_the_daemon_closes_before_its_end() -> None:
    """It is no sign that no daemon runs."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}"
    assert answered(refusal, body=b"x" * (4 << 20))[:2] == (413, b"{}")


@pytest.mark.parametrize("cut", [0, 5, 30, len(WHOLE) - 5, len(WHOLE) - 1])
def test_an_answer_that_is_cut_off_is_none(cut: int) -> None:
    """A daemon was killed within it."""
    with pytest.raises(BadAnswer):
        answered(WHOLE[:cut])


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"x" * 70_000,
    ],
    ids=["another protocol", "no status", "no length", "chunks", "no end of the head"],
)
def test_an_answer_that_is_not_read_here_is_an_error(raw: bytes) -> None:
    """It is never taken for another answer."""
    with pytest.raises(BadAnswer):
        answered(raw)


@pytest.mark.parametrize("part", ["a b", "a\r\nX: y", "ä", "\udcff", "a\tb\x7f"])
def test_no_path_ends_the_line_of_its_request(part: str) -> None:
    """An id that a user has typed may hold any character."""
    asked = answered(WHOLE, target=f"/v1/inbox/{part}?a=%20b")[2]
    lines = asked.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line.partition(b":")[0] for line in lines[1:]] == [
        b"Host",
        b"Connection",
        b"Content-Type",
        b"Content-Length",
    ]
    method, path, version = lines[0].decode("ascii").split(" ")
    assert (method, version) == ("POST", "HTTP/1.1")
    assert path.startswith("/v1/inbox/") and path.endswith("?a=%20b") and "%" in path[:-6]
