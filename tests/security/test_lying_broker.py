"""A broker that floods freezes no daemon: programs are answered meanwhile, and the link is opened again."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.security.test_flooding import GROWTH, resident
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S

ASKS = 15
NOT_MASKED = {
    "pongs": b"\x8a\x00" * 100_000,
    "pings": (b"\x89\x7d" + b"x" * 125) * 2_000,
    "continuations": b"\x01\x01{" + b"\x00\x00" * 100_000,
    "fragments": b"\x01\x01{" + b"\x00\x01 " * 100_000,
    "texts": b"\x81\x00" * 100_000,
}
REACHED = {
    "pongs": "control_frames",
    "pings": "control_frames",
    "continuations": "control_frames",
    "fragments": "fragments",
    "texts": "control_frames",
}
# Where another answer than the upgrade comes: a body without an end, in tiny chunks or in tiny header lines.
NO_UPGRADE = {
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000,
    "lines": b"HTTP/1.1 101 Switching Protocols\r\n" + b"a: b\r\n" * 100_000,
    "garbage": b"HTTP/1.1 101 Switching Protocols\r\n" + b"x" * 1_000_000,
}


@dataclass
class Liar:
    """A broker's address that passes everything on until it lies."""

    broker_port: int
    port: int = 0
    lie: bytes = b""
    at_once: bool = False
    lies: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            with suppress(OSError):
                link, _ = listener.accept()
                threading.Thread(target=self._carry, args=(link,), daemon=True).start()

    def _carry(self, link: socket.socket) -> None:
        with link, suppress(OSError):
            if self.lie and self.at_once:
                link.recv(65_536)
                self._lie(link)
                return
            with socket.create_connection(("127.0.0.1", self.broker_port)) as broker:
                threading.Thread(target=self._back, args=(link, broker), daemon=True).start()
                self._forth(broker, link)

    def _back(self, link: socket.socket, broker: socket.socket) -> None:
        with suppress(OSError):
            while data := link.recv(65_536):
                broker.sendall(data)

    def _forth(self, broker: socket.socket, link: socket.socket) -> None:
        broker.settimeout(0.2)
        while not self.stopping.is_set():
            try:
                data = broker.recv(65_536)
                if not data:
                    return
                link.sendall(data)
            except TimeoutError:
                # Silence: what has been passed on ends with a frame.
                if self.lie and self.at_once:
                    return
                if self.lie:
                    self._lie(link)
                    return

    def _lie(self, link: socket.socket) -> None:
        self.lies += 1
        while self.lie and not self.stopping.is_set():
            link.sendall(self.lie)


@contextmanager
def liar(made: Mesh) -> Generator[Liar]:
    """Stand before a broker, at the port where it is dialled too."""
    lying = Liar(made.broker.port)
    with socket.create_server(("127.0.0.1", made.broker.front_port)) as listener:
        lying.port = listener.getsockname()[1]
        thread = threading.Thread(target=lying.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield lying
        finally:
            lying.stopping.set()
            lying.lie = b""
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", lying.port), timeout=WAIT_S).close()
            thread.join(WAIT_S)


@dataclass
class Pair:
    made: Mesh
    liar: Liar

    @property
    def alice(self) -> Daemon:
        return self.made.daemons["alice"]


@pytest.fixture
def pair(meshed: Pair) -> Generator[Pair]:
    """The pair with an honest broker, before and after the test."""
    meshed.alice.ready()
    yield meshed
    meshed.liar.lie = b""


@pytest.fixture(scope="module")
def meshed() -> Generator[Pair]:
    """Alice reaches her broker by way of the liar, bob by himself."""
    with mesh("alice", "bob", start=False, front=True) as made, liar(made) as between:
        path = made.daemons["alice"].root / "membership.json"
        membership = json.loads(path.read_text())
        path.write_text(json.dumps({**membership, "broker_url": f"ws://127.0.0.1:{between.port}"}))
        for daemon in made.daemons.values():
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        yield Pair(made, between)


def answers(alice: Daemon, what: str) -> None:
    """Ask the daemon and send by it, and print the times."""
    times = []
    for number in range(ASKS):
        began = time.perf_counter()
        assert alice.request("GET", "/v1/health")[0] == 200
        assert alice.send("bob", f"{what} {number}")[0] == 202
        times.append(time.perf_counter() - began)
    print(f"{what}: {statistics.median(times) * 1000:.0f} ms (max {max(times) * 1000:.0f})")


def reached(alice: Daemon, limit: str) -> float:
    """Return how many times the link has reached a limit."""
    connection = alice.connection()
    connection.request("GET", "/v1/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    name = f'cm_daemon_guard_limits_total{{limit="{limit}",transport="link"}} '
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)


@pytest.mark.parametrize("kind", sorted({**NOT_MASKED, **NO_UPGRADE}))
def test_a_daemon_answers_while_its_broker_floods(pair: Pair, kind: str) -> None:
    """The link is cut off, and is up again when the broker is honest again; every send arrives."""
    alice, lying = pair.alice, pair.liar
    limit = REACHED.get(kind, "")
    before, count, lies = resident(alice.pid), reached(alice, limit), lying.lies
    lying.at_once = kind in NO_UPGRADE
    lying.lie = NOT_MASKED.get(kind) or NO_UPGRADE[kind]
    until(lambda: lying.lies > lies, "the broker lies")
    answers(alice, kind)
    if limit:
        until(lambda: reached(alice, limit) > count, f"the link reaches {limit}")
    grown = resident(alice.pid) - before
    print(f"memory +{grown >> 20} MiB")
    assert grown < GROWTH
    lying.lie = b""
    alice.ready()
    alice.get_across({"to": "bob", "message": f"after {kind}"})
    assert alice.log.read_text().count('"limit_reached"') <= len(set(REACHED.values()))
