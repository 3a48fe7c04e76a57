"""Nothing that a token opened outlives it: streams and long polls end when the token's grace is over."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest

from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    """A broker and alice, whose old tokens work for a second."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\nold_token_s = 1\n")
        alice.start()
        alice.ready()
        yield made


def token_of(daemon: Daemon) -> str:
    return (daemon.root / "local_token").read_text().strip()


def rotate(daemon: Daemon) -> None:
    old = token_of(daemon)
    assert run(daemon.home, "daemon", "rotate-token").code == 0
    assert token_of(daemon) != old


class Stream:
    """An event stream on the loopback, or on the socket, read in a thread."""

    def __init__(self, daemon: Daemon, token: str | None) -> None:
        self.lines: list[bytes] = []
        self.over = threading.Event()
        if token is None:
            self._connection = daemon.connection()
        else:
            port = int((daemon.root / "http.port").read_text())
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        self._connection.request("GET", "/v1/events", headers=_bearer(token))
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        threading.Thread(target=self._read, daemon=True).start()

    def shows(self, text: str) -> bool:
        return any(text.encode() in line for line in self.lines)

    def close(self) -> None:
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            while line := self._response.readline():
                self.lines.append(line)
        except (OSError, ValueError, http.client.HTTPException):
            pass
        finally:
            self.over.set()


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@contextmanager
def streams(daemon: Daemon, *tokens: str | None) -> Generator[list[Stream]]:
    made = [Stream(daemon, token) for token in tokens]
    try:
        yield made
    finally:
        for stream in made:
            stream.close()


def test_a_stream_ends_with_the_token_that_opened_it(running: Mesh) -> None:
    """Within the grace it goes on; then it is cut off. Streams of others are not touched."""
    alice = running.daemons["alice"]
    old = token_of(alice)
    with streams(alice, old, None) as (stale, local):
        until(lambda: stale.shows("live"), "the stream is live")
        rotate(alice)
        with streams(alice, token_of(alice)) as (fresh,):
            assert alice.send("alice", "to everybody who listens")[0] == 200
            until(lambda: fresh.shows("to everybody"), "the stream of the new token shows it")
            assert stale.over.wait(WAIT_S)
            assert alice.send("alice", "after the grace")[0] == 200
            for stream in (fresh, local):
                until(lambda stream=stream: stream.shows("after the grace"), "the others go on")
                assert not stream.over.is_set()
            assert not stale.shows("after the grace")


def test_a_second_rotation_ends_the_streams_of_the_first_token_at_once(running: Mesh) -> None:
    """Two tokens work at a time; the one before them opens nothing and keeps nothing open."""
    alice = running.daemons["alice"]
    with streams(alice, token_of(alice)) as (stale,):
        rotate(alice)
        rotate(alice)
        assert stale.over.wait(WAIT_S)


def test_a_long_poll_ends_with_its_token(running: Mesh) -> None:
    """`wait_ms` of 30 s, while the broker is away: what was accepted stays, the answer is not given."""
    alice = running.daemons["alice"]
    port = int((alice.root / "http.port").read_text())
    assert alice.request("POST", "/v1/topic/create", {"topic": "news"})[0] in (200, 201)
    running.broker.kill()
    waiting = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    body = '{"to":"#news","message":"later","client_message_id":"long-poll"}'
    headers = {"Content-Type": "application/json", **_bearer(token_of(alice))}
    with closing(waiting) as connection:
        connection.request("POST", "/v1/send?wait_ms=30000", body, headers)
        until(lambda: "long-poll" in alice.outbox(), "the send is accepted")
        rotate(alice)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            connection.getresponse()
    running.broker.start()
    until(lambda: alice.outbox()["long-poll"]["status"] == "done", "it has left")
