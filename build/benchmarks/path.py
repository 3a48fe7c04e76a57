"""From one daemon's socket to the other daemon's inbox, through an embedded broker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from pathlib import Path

from benchmarks.client import peer_of, pipelined
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
from tests.support.processes import Daemon, Mesh, until
from tests.support.wspeer import make_invite, new_id

_LATENCIES = size(150, 3)
_CALLERS = 64
_MESSAGES = size(9600, 640)
_SENT = _MESSAGES // _CALLERS * _CALLERS
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
            latencies.append(_shown_s(caller, watcher, request))
            commits.append(lab.probe.commit())
            empties.append(caller.timed(EMPTY_REQUEST))
    hops = 1.5 * median_ms(empties) + asyncio.run(_ping_ms(lab))
    return median_ms(latencies), 3 * median_ms(commits) + hops


def _shown_s(caller: Caller, watcher: Watcher, request: bytes) -> float:
    """Send one message and return the seconds until the recipient's event stream shows it."""
    started = time.perf_counter()
    found = _ID.search(caller.ask(request))
    assert found is not None
    watcher.wait_for(found[1])
    return time.perf_counter() - started


def idle_alone(lab: Lab) -> float:
    """One message at a time; milliseconds."""
    request = send_request("bob")
    with Caller(lab.alice) as caller, Watcher(lab.bob) as watcher:
        return median_ms([_shown_s(caller, watcher, request) for _ in range(_LATENCIES)])


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


def loaded_alone(lab: Lab) -> float:
    """64 callers until the last message is in the other inbox; messages/s."""
    return _arriving(lab, send_request("bob"))


def processor(lab: Lab) -> float:
    """Processor time of both daemons and the broker for a message of 64 callers; microseconds."""
    processes = (lab.alice, lab.live.broker, lab.bob)
    before = sum(_worked_s(process.pid) for process in processes)
    _arriving(lab, send_request("bob"))
    return (sum(_worked_s(process.pid) for process in processes) - before) / _SENT * 1e6


def _worked_s(pid: int) -> float:
    """Processor time of a process, threads that have ended included; in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def posted_alone(lab: Lab) -> float:
    """Posts of 64 callers to a topic with one subscriber; messages/s."""
    _make_topic(lab)
    return _arriving(lab, post_request(_TOPIC))


def posted(lab: Lab) -> tuple[float, float]:
    """Posts of 64 callers to a topic with one subscriber, beside as many direct messages. Messages/s.

    Both are sealed: a post with the key of its topic, a direct message with the keys of both members.
    """
    _make_topic(lab)
    return _arriving(lab, post_request(_TOPIC)), _arriving(lab, send_request("bob"))


def _make_topic(lab: Lab) -> None:
    for daemon, act in ((lab.alice, "create"), (lab.bob, "subscribe")):
        assert daemon.request("POST", f"/v1/topic/{act}", {"topic": _TOPIC})[0] in (200, 201)
    # The key is made for the first post.
    _arriving(lab, post_request(_TOPIC), _CALLERS)


def _arriving(lab: Lab, request: bytes, messages: int = _MESSAGES) -> float:
    before = received(lab.bob)
    started = time.perf_counter()
    load_with(lab.alice, request, _CALLERS, messages)
    arrived = before + messages // _CALLERS * _CALLERS
    until(lambda: received(lab.bob) >= arrived, "all of it has arrived", _LONGEST_S)
    return messages / (time.perf_counter() - started)


def to_an_older_key(lab: Lab) -> tuple[float, float]:
    """Messages that waited while their recipient rotated its keys, beside as many without. Messages/s."""
    with lab.mesh("alice", "bob") as made:
        for daemon in made.daemons.values():
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
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

    def has_begun() -> bool:
        # The time until alice dials again is a random part of her backoff.
        nonlocal started
        now = time.perf_counter()
        if received(bob) > before:
            return True
        started = now
        return False

    messages = _WAITING // _CALLERS * _CALLERS
    until(has_begun, "the first has arrived", _LONGEST_S)
    until(lambda: received(bob) >= before + messages, "all of it has arrived", _LONGEST_S)
    return messages / (time.perf_counter() - started)
