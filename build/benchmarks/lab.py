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
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from benchmarks.archive import archive_command
from tests.support.postgres import Server, sql
from tests.support.processes import REPOSITORY, Broker, Daemon, Mesh, until

HERE = Path(__file__).parent
BODY = "x" * 1024
T = TypeVar("T")
# The limiter is a policy of the mesh, not what is measured. Builds differ in the columns that they have.
_LIMITS = {
    "rate_limit_per_minute": 1_000_000_000,
    "member_rate_limit_per_minute": 1_000_000_000,
    "member_bytes_per_minute": 1_000_000_000_000_000,
}
_UNLIMIT_POSTGRES = """DO $$
DECLARE found text;
BEGIN
    FOR found IN SELECT column_name FROM information_schema.columns
                 WHERE table_schema = 'mesh' AND table_name = 'mesh' AND column_name LIKE '%\\_per\\_minute'
    LOOP
        EXECUTE format('UPDATE mesh.mesh SET %I = 1000000000', found);
    END LOOP;
END $$"""
_CLAUDEMESH = [sys.executable, "-m", "claudemesh"]
_STORELESS = [sys.executable, str(HERE / "storeless.py")]


def unlimit(database: sqlite3.Connection) -> None:
    """Lift the limits of all meshes of a stopped broker."""
    there = {column[1] for column in database.execute("PRAGMA table_info(mesh)")}
    for name, limit in _LIMITS.items():
        if name in there:
            database.execute(f"UPDATE mesh SET {name} = ?", (limit,))  # noqa: S608 - a name of ours


class OnDisk(Server):
    """A Postgres whose commits wait for the disk, as those of the brokers beside it do."""

    in_memory = False


@contextmanager
def bench_mesh(*names: str, program: Sequence[str], database_url: str | None = None) -> Generator[Mesh]:
    """A running broker and members that are not started. All run the program."""
    # A short folder: a socket path has at most 107 bytes.
    made = Mesh(Path(tempfile.mkdtemp(prefix="cm-")), database_url)
    made.program = list(program)
    made.broker.command = made.program
    try:
        made.broker.start()
        made.broker.ready()
        for name in names:
            made.add(name).command = made.program
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.root, ignore_errors=True)


class Lab:
    """Real processes in temporary folders; `alice` and `bob` are linked, `erin` and `frank` are cut off.

    `frank` does everything that a daemon does for a send, but stores nothing.
    """

    def __init__(self, archive: Path | None = None, *, storeless: bool = True) -> None:
        self._stack = ExitStack()
        # The processes run from the tree, or from an archive.
        self._archive = archive
        self._program = _CLAUDEMESH if archive is None else archive_command(archive)
        # The stand-in of `frank` fits this tree alone: with another build `frank` is a usual daemon.
        self._storeless = _STORELESS if storeless else self._program
        self._postgres: tuple[Server, Mesh] | None = None
        self.inboxes: tuple[Path, Path] | None = None
        # The commands of programs with an SDK, by language.
        self.programs: dict[str, list[str]] = {}
        self._peers: dict[str, Path] = {}
        self._second: Broker | None = None
        self._grown: Mesh | None = None
        self._crowded: dict[int, Mesh] = {}
        self._shared: dict[str, Any] = {}

    def __enter__(self) -> Lab:
        # A process that is running ends when another one does not start.
        with self._stack:
            self.live = self._stack.enter_context(self.mesh("alice", "bob"))
            self.alice, self.bob = self._start(self.live)
            self.away = self._stack.enter_context(self.mesh("erin", "frank"))
            self.away.daemons["frank"].command = self._storeless
            self.erin, self.frank = self._start(self.away)
            until(lambda: len(_peers(self.erin)) == len(_peers(self.frank)) == 2, "both know each other")
            self.away.broker.kill()
            self.probe = Probe(self.live.root)
            self._stack.callback(self.probe.close)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def archive(self) -> list[str]:
        """The command of claudemesh.pyz."""
        return archive_command(self._archive or REPOSITORY / "dist/claudemesh.pyz")

    def mesh(self, *names: str, database_url: str | None = None) -> AbstractContextManager[Mesh]:
        """A running broker of the measured build, and members that are not started."""
        return bench_mesh(*names, program=self._program, database_url=database_url)

    def shared(self, name: str, made: Callable[[], AbstractContextManager[T]]) -> T:
        """Return a thing that several rounds or rows use; made when first asked for, ended with the lab."""
        if name not in self._shared:
            self._shared[name] = self._stack.enter_context(made())
        found: T = self._shared[name]
        return found

    def on_postgres(self) -> tuple[Server, Mesh]:
        """A Postgres, and a mesh whose broker keeps its data there; started when first asked for."""
        if self._postgres is None:
            server = OnDisk()
            self._stack.callback(server.remove)
            server.start()
            made = self._in_database(server, "bench", "olga", "paul")
            self._postgres = server, made
        return self._postgres

    def _in_database(self, server: Server, database: str, *names: str) -> Mesh:
        asyncio.run(sql(server.url(), f"CREATE DATABASE {database}", "SELECT 1"))
        made = self._stack.enter_context(self.mesh(*names, database_url=server.url(database)))
        asyncio.run(sql(server.url(database), _UNLIMIT_POSTGRES, "SELECT 1"))
        return made

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
            self._second.command = self._program
            self._stack.callback(self._second.kill)
            self._second.start()
            self._second.ready()
        return self._second.url

    def grown(self, statements: Sequence[str]) -> Mesh:
        """A mesh on a database of its own in which these have been run; made when first asked for."""
        if self._grown is None:
            server, _ = self.on_postgres()
            made = self._in_database(server, "grown", "quin")
            asyncio.run(sql(server.url("grown"), *statements, "SELECT 1"))
            self._grown = made
        return self._grown

    def with_members(self, count: int, **fields: Any) -> Mesh:
        """A mesh of `rosa` and the given number of members that are not connected. It is created at the
        first use."""
        if count not in self._crowded:
            # Builds without the crowd's support have the other rows.
            from tests.support.crowd import fill

            made = self._stack.enter_context(self.mesh("rosa"))
            made.broker.stop()
            mesh_id = json.loads((made.daemons["rosa"].root / "membership.json").read_text())["mesh_id"]
            fill(made.broker.data / "broker.db", mesh_id, count, "member-", **fields)
            with closing(sqlite3.connect(made.broker.data / "broker.db")) as database, database:
                unlimit(database)
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

    def _start(self, made: Mesh) -> list[Daemon]:
        made.broker.stop()
        with closing(sqlite3.connect(made.broker.data / "broker.db")) as database, database:
            unlimit(database)
        made.broker.start()
        made.broker.ready()
        daemons = list(made.daemons.values())
        for daemon in daemons:
            daemon.start()
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
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._more()
        return received[:12] + b" " + body

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the daemon has closed the connection")
        return data

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
    return json_request("/v1/send", {"to": to, "message": BODY})


def post_request(topic: str) -> bytes:
    """POST /v1/topic/post with a message of 1 KiB."""
    return json_request("/v1/topic/post", {"topic": topic, "message": BODY})


def json_request(path: str, fields: Mapping[str, str]) -> bytes:
    """POST with a JSON body."""
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
