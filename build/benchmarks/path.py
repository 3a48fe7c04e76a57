"""From one daemon's socket to the other daemon's inbox, through an embedded broker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time

from benchmarks.accept import peer_of, pipelined
from benchmarks.lab import (
    EMPTY_REQUEST,
    Caller,
    Lab,
    load,
    load_with,
    median_ms,
    post_request,
    received,
    send_request,
)
from benchmarks.size import size
from tests.support.broker import join_mesh
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.wspeer import make_invite, new_id

_LATENCIES = size(150, 3)
_CALLERS = 64
_MESSAGES = size(9600, 640)
_WAITING = size(10_000, 640)
_LONGEST_S = 120.0
_TOPIC = "bench"
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
    return _arriving(lab, send_request("bob")), accepted


def posted(lab: Lab) -> tuple[float, float]:
    """Posts of 64 callers to a topic with one subscriber, beside as many direct messages. Messages/s.

    Both are sealed: a post with the key of its topic, a direct message with the keys of both members.
    """
    for daemon, act in ((lab.alice, "create"), (lab.bob, "subscribe")):
        assert daemon.request("POST", f"/v1/topic/{act}", {"topic": _TOPIC})[0] in (200, 201)
    # The key is made for the first post.
    _arriving(lab, post_request(_TOPIC), _CALLERS)
    return _arriving(lab, post_request(_TOPIC)), _arriving(lab, send_request("bob"))


def _arriving(lab: Lab, request: bytes, messages: int = _MESSAGES) -> float:
    before = received(lab.bob)
    started = time.perf_counter()
    load_with(lab.alice, request, _CALLERS, messages)
    arrived = before + messages // _CALLERS * _CALLERS
    until(lambda: received(lab.bob) >= arrived, "all of it has arrived", _LONGEST_S)
    return messages / (time.perf_counter() - started)


def to_an_older_key(_: Lab) -> tuple[float, float]:
    """Messages that waited while their recipient rotated its keys, beside as many without. Messages/s."""
    with mesh("alice", "bob") as made:
        return _after_waiting(made, rotates=True), _after_waiting(made, rotates=False)


def _after_waiting(made: Mesh, *, rotates: bool) -> float:
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    made.broker.stop()
    load(alice, "bob", _CALLERS, _WAITING)
    os.kill(alice.pid, signal.SIGSTOP)
    try:
        made.broker.start()
        made.broker.ready()
        bob.ready()
        if rotates:
            status, answer = bob.request("POST", "/v1/keys/rotate")
            assert (status, answer["status"]) == (200, "rotated"), answer
        before, started = received(bob), time.perf_counter()
    finally:
        os.kill(alice.pid, signal.SIGCONT)
    messages = _WAITING // _CALLERS * _CALLERS
    until(lambda: received(bob) >= before + messages, "all of it has arrived", _LONGEST_S)
    return messages / (time.perf_counter() - started)
