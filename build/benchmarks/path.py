"""From one daemon's socket to the other daemon's inbox, through an embedded broker."""

from __future__ import annotations

import asyncio
import re
import socket
import time

from benchmarks.accept import peer_of, pipelined
from benchmarks.lab import EMPTY_REQUEST, Caller, Lab, load, median_ms, received, send_request
from benchmarks.size import size
from tests.support.broker import join_mesh
from tests.support.processes import Daemon, until
from tests.support.wspeer import make_invite, new_id

_LATENCIES = size(150, 3)
_CALLERS = 64
_MESSAGES = size(9600, 640)
_ID = re.compile(rb'"client_message_id":"(\w+)"')


def idle(lab: Lab) -> tuple[float, float]:
    """One message at a time, from the POST until the recipient's event stream shows it. Milliseconds.

    The ceiling: outbox, accept and inbox commit; the caller's and the reader's hop, as one and a half
    empty requests; the two hops over the broker, as one ping there and back.
    """
    request = send_request("bob")
    latencies, commits, empties = [], [], []
    with Caller(lab.alice) as caller, Watcher(lab.bob) as watcher:
        for _ in range(_LATENCIES):
            started = time.perf_counter()
            found = _ID.search(caller.ask(request))
            assert found is not None
            watcher.wait_for(found[1])
            latencies.append(time.perf_counter() - started)
            commits.append(lab.probe.commit())
            empties.append(caller.timed(EMPTY_REQUEST))
    hops = 1.5 * median_ms(empties) + asyncio.run(_ping_ms(lab))
    return median_ms(latencies), 3 * median_ms(commits) + hops


class Watcher:
    """An event stream of a daemon, read as it comes."""

    def __init__(self, daemon: Daemon) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(daemon.sock))
        self._socket.sendall(
            b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        self._socket.recv(65536)

    def wait_for(self, wanted: bytes) -> None:
        """Read until this id has come."""
        seen = b""
        while wanted not in seen:
            seen = seen[-64:] + self._socket.recv(65536)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def _ping_ms(lab: Lab) -> float:
    owner = peer_of(lab.alice)
    peer = await join_mesh(owner, f"m-{new_id()}", invite=make_invite(owner))
    times = []
    async with peer.connect() as link:
        await link.settle()
        for _ in range(_LATENCIES):
            started = time.perf_counter()
            await (await link.websocket.ping())
            times.append(time.perf_counter() - started)
    return median_ms(times)


def loaded(lab: Lab) -> tuple[float, float]:
    """64 callers until the last message is in the other inbox, beside the broker's accept. Messages/s."""
    _, accepted = asyncio.run(pipelined(peer_of(lab.alice)))
    before = received(lab.bob)
    started = time.perf_counter()
    load(lab.alice, "bob", _CALLERS, _MESSAGES)
    until(lambda: received(lab.bob) >= before + _MESSAGES, "all of it has arrived", 120)
    return _MESSAGES / (time.perf_counter() - started), accepted
