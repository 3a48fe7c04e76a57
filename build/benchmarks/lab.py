"""Instances to measure: a running mesh, and a daemon whose broker is away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.crowd import fill
from tests.support.postgres import Server, sql
from tests.support.processes import Broker, Daemon, Mesh, Process, mesh, until

HERE = Path(__file__).parent
BODY = "x" * 1024
# The limiter is a policy of the mesh, not what is measured.
_LIMITS = (
    "rate_limit_per_minute = 1000000000, member_rate_limit_per_minute = 1000000000, "
    "member_bytes_per_minute = 1000000000000000"
)
UNLIMITED = f"UPDATE mesh.mesh SET {_LIMITS}"  # noqa: S608 - all ours
_CLAUDEMESH = [sys.executable, "-m", "claudemesh"]
_STORELESS = [sys.executable, str(HERE / "storeless.py")]


class Lab:
    """Real processes in temporary folders; `alice` and `bob` are linked, `erin` and `frank` are cut off.

    `frank` does everything that a daemon does for a send, but stores nothing.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._postgres: tuple[Server, Mesh] | None = None
        self.inboxes: tuple[Path, Path] | None = None
        self._peers: dict[str, Path] = {}
        self._second: Broker | None = None
        self._grown: Mesh | None = None
        self._crowded: dict[int, Mesh] = {}

    def __enter__(self) -> Lab:
        self.live = self._stack.enter_context(mesh("alice", "bob", start=False))
        self.alice, self.bob = self._start(self.live, _CLAUDEMESH, _CLAUDEMESH)
        self.away = self._stack.enter_context(mesh("erin", "frank", start=False))
        self.erin, self.frank = self._start(self.away, _CLAUDEMESH, _STORELESS)
        until(lambda: len(_peers(self.erin)) == len(_peers(self.frank)) == 2, "both know each other")
        self.away.broker.kill()
        self.probe = Probe(self.live.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.probe.close()
        self._stack.__exit__(kind, error, trace)

    def on_postgres(self) -> tuple[Server, Mesh]:
        """A Postgres, and a mesh whose broker keeps its data there; started when first asked for."""
        if self._postgres is None:
            server = Server()
            self._stack.callback(server.remove)
            server.start()
            asyncio.run(sql(server.url(), "CREATE DATABASE bench", "SELECT 1"))
            made = self._stack.enter_context(mesh(start=False))
            made.broker.stop()
            made.broker.command = _CLAUDEMESH
            made.broker.arguments += ["--database-url", server.url("bench")]
            made.broker.start()
            made.broker.ready()
            for name in ("olga", "paul"):
                made.add(name)
            asyncio.run(sql(server.url("bench"), UNLIMITED, "SELECT 1"))
            self._postgres = server, made
        return self._postgres

    def second_broker(self) -> str:
        """The URL of another broker on the same database; started when first asked for."""
        if self._second is None:
            server, made = self.on_postgres()
            folder = made.root / "second"
            folder.mkdir()
            self._second = Broker(folder, server.url("bench"))
            self._second.data.mkdir(mode=0o700)
            # All brokers of a database have one admin token.
            shutil.copy(made.broker.data / "admin_token", self._second.data)
            self._second.command = _CLAUDEMESH
            self._stack.callback(self._second.kill)
            self._second.start()
            self._second.ready()
        return self._second.url

    def grown(self, statements: Sequence[str]) -> Mesh:
        """A mesh on a database of its own in which these have been run; made when first asked for."""
        if self._grown is None:
            server, _ = self.on_postgres()
            asyncio.run(sql(server.url(), "CREATE DATABASE grown", "SELECT 1"))
            made = self._stack.enter_context(mesh(start=False))
            made.broker.stop()
            made.broker.command = _CLAUDEMESH
            made.broker.arguments += ["--database-url", server.url("grown")]
            made.broker.start()
            made.broker.ready()
            made.add("quin")
            asyncio.run(sql(server.url("grown"), UNLIMITED, *statements, "SELECT 1"))
            self._grown = made
        return self._grown

    def with_members(self, count: int, **fields: Any) -> Mesh:
        """A mesh of `rosa` and the given number of members that are not connected. It is created at the
        first use."""
        if count not in self._crowded:
            made = self._stack.enter_context(mesh("rosa", start=False))
            made.broker.stop()
            mesh_id = json.loads((made.daemons["rosa"].root / "membership.json").read_text())["mesh_id"]
            fill(made.broker.data / "broker.db", mesh_id, count, "member-", **fields)
            made.broker.command = _CLAUDEMESH
            made.broker.start()
            made.broker.ready()
            self._crowded[count] = made
        return self._crowded[count]

    def peer(self, name: str, start: Callable[[], tuple[Path, Callable[[], None]]]) -> Path:
        """The folder of another broker's server; started when first asked for."""
        if name not in self._peers:
            self._peers[name], stop = start()
            self._stack.callback(stop)
        return self._peers[name]

    def _start(self, made: Mesh, *commands: list[str]) -> list[Daemon]:
        made.broker.stop()
        database = sqlite3.connect(made.broker.data / "broker.db")
        # The limiter is a policy of the mesh, not what is measured.
        database.execute(f"UPDATE mesh SET {_LIMITS}")  # noqa: S608 - all ours
        database.commit()
        database.close()
        daemons = list(made.daemons.values())
        processes: list[Process] = [made.broker, *daemons]
        for process, command in zip(processes, (_CLAUDEMESH, *commands), strict=True):
            process.command = command
            process.start()
        made.broker.ready()
        for daemon in daemons:
            daemon.ready()
        return daemons


def _peers(daemon: Daemon) -> list[object]:
    found: list[object] = daemon.request("GET", "/v1/peers")[1]["items"]
    return found


class Probe:
    """One fsync'd commit of one row as large as an outbox row: what the disk and SQLite cost alone."""

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "probe.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")

    def commit(self) -> float:
        """Commit once; seconds."""
        started = time.perf_counter()
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT INTO row (payload) VALUES (?)", (os.urandom(2200),))
        self._database.execute("COMMIT")
        return time.perf_counter() - started

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class Caller:
    """One connection to a daemon's socket, kept alive, without a client library in the way."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(daemon.sock))

    def ask(self, request: bytes) -> bytes:
        """Send a request and read its whole answer."""
        self.socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.socket.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self.socket.recv(65536)
        return received[:12] + b" " + body

    def timed(self, request: bytes) -> float:
        """Ask; seconds."""
        started = time.perf_counter()
        self.ask(request)
        return time.perf_counter() - started

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


EMPTY_REQUEST = b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def send_request(to: str) -> bytes:
    """POST /v1/send with a message of 1 KiB."""
    return _request("/v1/send", {"to": to, "message": BODY})


def post_request(topic: str) -> bytes:
    """POST /v1/topic/post with a message of 1 KiB."""
    return _request("/v1/topic/post", {"topic": topic, "message": BODY})


def _request(path: str, fields: dict[str, str]) -> bytes:
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def load(daemon: Daemon, to: str, callers: int, total: int) -> float:
    """Let many callers send at once, from a process of their own; requests/s."""
    return load_with(daemon, send_request(to), callers, total)


def load_with(daemon: Daemon, request: bytes, callers: int, total: int) -> float:
    """Let many callers make the same request; requests/s."""
    command = [sys.executable, str(HERE / "load.py"), str(daemon.sock), str(callers), str(total)]
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    return float(done.stdout)


def received(daemon: Daemon) -> int:
    """Return the number of messages that an inbox has ever taken."""
    with closing(sqlite3.connect(f"file:{daemon.root}/inbox.db?mode=ro", uri=True)) as database:
        newest = database.execute("SELECT max(seq) FROM inbox").fetchone()[0]
    return newest or 0


def median_ms(seconds: list[float]) -> float:
    """The middle one, in milliseconds."""
    return statistics.median(seconds) * 1000
