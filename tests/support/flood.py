"""Attackers on a port, in a process of their own: `-m tests.support.flood KIND HOST PORT COUNT SOURCE [tls]`.

They attack until their standard input ends, then print what happened to them as one line of JSON.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.processes import REPOSITORY, until
from tests.support.waiting import WAIT_S

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: claudemesh.v1\r\n\r\n"
)
CHUNKED = b"POST /v1/join HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
# An attacker that is not let in tries again.
_PATIENCE_S = 5.0
SLOW_BODY = b"POST /v1/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
_MASK = bytes(4)
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame; its mask is zero."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0x80 | 127,)) + struct.pack("!Q", size)
    return bytes(((0x80 if final else 0) | opcode,)) + length + _MASK + payload


@dataclass(frozen=True)
class Flood:
    """A flood: the first bytes of a connection, whether it reads an answer before it continues, and the bytes
    that it repeats."""

    first: bytes
    answered: bool
    then: bytes = b""
    repeat: bytes = b""


FLOODS = {
    "pongs": Flood(UPGRADE, True, b"", frame(10) * 40_000),
    "pings": Flood(UPGRADE, True, b"", frame(9, b"x" * 125) * 2_000),
    "continuations": Flood(UPGRADE, True, frame(1, b"{", final=False), frame(0, final=False) * 40_000),
    "fragments": Flood(UPGRADE, True, frame(1, b"{", final=False), frame(0, b" ", final=False) * 35_000),
    "frames": Flood(UPGRADE, True, b"", frame(1, b'{"type":"x"}') * 14_000),
    "large": Flood(UPGRADE, True, frame(1, b"x" * (2 << 20), final=False), b""),
    "chunks": Flood(CHUNKED, False, b"", b"1\r\nx\r\n" * 40_000),
    "body": Flood(SLOW_BODY.replace(b"100", b"1000000000000"), False, b"", b"x" * (1 << 20)),
    "trailers": Flood(CHUNKED + b"0\r\n", False, b"", b"a:\r\n" * 60_000),
    "lines": Flood(b"GET / HTTP/1.1\r\n", False, b"", b"a:\r\n" * 60_000),
    "requests": Flood(b"", False, b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000),
    "metrics": Flood(b"", False, b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000),
    "churn": Flood(UPGRADE, True),
}
# Connections that are held: what each sends, and then nothing more.
HOLDS = {
    "idle": b"",
    "slow head": b"GET /healthz HTTP/1.1\r\nHost: local",
    "slow body": SLOW_BODY,
    "half-open": UPGRADE,
}


@dataclass
class _Attack:
    host: str
    port: int
    source: str
    tls: ssl.SSLContext | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)

    def connect(self) -> socket.socket:
        link = socket.create_connection((self.host, self.port), _PATIENCE_S, (self.source, 0))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counts["opened"] += 1
        return link if self.tls is None else self.tls.wrap_socket(link)

    def flood(self, what: Flood) -> None:
        """Connect, flood until it is cut off, and again."""
        while not self.stopping.is_set():
            try:
                with self.connect() as link:
                    link.sendall(what.first)
                    if what.answered and not link.recv(4096):
                        self.counts["refused"] += 1
                        continue
                    link.sendall(what.then)
                    while what.repeat and not self.stopping.is_set():
                        self.go_on(link, what.repeat)
                    self.counts["kept"] += 1
            except TimeoutError:
                self.counts["stuck"] += 1
            except OSError:
                self.counts["cut"] += 1

    def go_on(self, link: socket.socket, data: bytes) -> None:
        """Send on, and read what comes back so that it does not pile up."""
        view = memoryview(data)
        link.setblocking(False)
        while view and not self.stopping.is_set():
            try:
                view = view[link.send(view) :]
            except _NOT_NOW:
                self.stopping.wait(0.001)
            try:
                if not link.recv(1 << 20):
                    raise ConnectionResetError
            except _NOT_NOW:
                pass

    def hold(self, first: bytes, count: int) -> None:
        """Keep so many connections open, each of them idle; those that are ended are opened again."""
        links: list[socket.socket] = []
        while not self.stopping.is_set():
            links = [link for link in links if self._is_open(link)]
            try:
                while len(links) < count and not self.stopping.is_set():
                    link = self.connect()
                    links.append(link)
                    link.sendall(first)
                    link.setblocking(False)
            except OSError:
                self.counts["refused"] += 1
            self.counts["held"] = max(self.counts["held"], len(links))
            self.stopping.wait(0.05)
        for link in links:
            if self._is_open(link):
                link.close()

    def _is_open(self, link: socket.socket) -> bool:
        try:
            while data := link.recv(65_536):
                assert data
        except _NOT_NOW:
            return True
        except OSError:
            pass
        link.close()
        self.counts["cut"] += 1
        return False


@dataclass
class Flooding:
    """An attack that goes on; `result` has what happened to it once it has been stopped."""

    process: subprocess.Popen[str]
    result: dict[str, int] = field(default_factory=dict)


@contextmanager
def flooding(
    kind: str, port: int, count: int, source: str = "127.0.0.1", *, tls: bool = False
) -> Generator[Flooding]:
    """Attack a port on the loopback from another process for as long as the block runs."""
    command = [sys.executable, "-m", "tests.support.flood", kind, "127.0.0.1", str(port), str(count), source]
    process = subprocess.Popen(
        [*command, "tls"] if tls else command,
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    made = Flooding(process)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "attacking\n"
        yield made
    finally:
        out, _ = process.communicate(timeout=WAIT_S)
        made.result.update(json.loads(out))


def main(kind: str, host: str, port: str, count: str, source: str, tls: str = "") -> None:
    """Attack until standard input ends."""
    attack = _Attack(host, int(port), source, ssl._create_unverified_context() if tls else None)
    work: list[Callable[[], Any]]
    if kind in FLOODS:
        work = [lambda: attack.flood(FLOODS[kind])] * int(count)
    else:
        work = [lambda: attack.hold(HOLDS[kind], int(count))]
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    until(lambda: attack.counts["opened"], "a connection is there")
    print("attacking", flush=True)
    sys.stdin.read()
    attack.stopping.set()
    for thread in threads:
        thread.join(WAIT_S)
    print(json.dumps(attack.counts), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
