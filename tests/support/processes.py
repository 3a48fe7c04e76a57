"""A mesh of real processes in a temporary folder: a broker, daemons, kills, restarts."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.nursery import Child, nursery_for
from tests.support.ports import free_port as free_port
from tests.support.pyz import REPOSITORY as REPOSITORY
from tests.support.waiting import WAIT_S

_ARMED = [sys.executable, "-m", "tests.support.armed"]
_PROGRAM = [sys.executable, "-m", "claudemesh"]
POLL_S = 0.01


def until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Poll a condition of another process until it is truthy; fails the test with `what` otherwise."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        with suppress(OSError, http.client.HTTPException):
            if result := condition():
                return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        pause.wait(POLL_S)


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


# The processes that were started since the last look.
_STARTED: set[Process] = set()


def end_started() -> list[str]:
    """Kill the processes of claudemesh that still run, and return their logs."""
    left = [process for process in _STARTED if process.running]
    _STARTED.clear()
    for process in left:
        process.kill()
    return [str(process.log) for process in left]


class Process:
    """One claudemesh process, with or without armed failpoints."""

    def __init__(self, arguments: list[str], home: Path, log: Path) -> None:
        self.arguments = arguments
        self.home = home
        self.log = log
        self._popen: subprocess.Popen[bytes] | Child | None = None
        # The command to run, and its prefix, such as a recorder of system calls.
        self.command = _ARMED
        self.prefix: list[str] = []
        # Forked, unless the start of the interpreter matters.
        self.forked = True
        # Variables of its own, on top of the environment of the caller.
        self.environment: dict[str, str] = {}
        # Those of its last start.
        self.failpoints = ""

    def start(self, failpoints: str = "") -> None:
        """Start the process; it is not ready yet."""
        _STARTED.add(self)
        self.failpoints = failpoints
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
            "CLAUDEMESH_HOME": str(self.home),
            "CLAUDEMESH_FAILPOINTS": failpoints,
            "PYTHONPATH": str(REPOSITORY),
            **self.environment,
        }
        with self.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            is_plain = self.forked and not self.prefix and self.command == _ARMED
            if is_plain and (nursery := nursery_for(environment)):
                streams = [stream.fileno() for stream in (nothing, log, log)]
                self._popen = nursery.spawn("armed", self.arguments, environment, streams)
                return
            self._popen = subprocess.Popen(
                [*self.prefix, *self.command, *self.arguments],
                cwd=REPOSITORY,
                env=environment,
                stdin=nothing,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> int:
        """SIGTERM, and return the exit code."""
        assert self._popen is not None
        self._popen.terminate()
        return self._popen.wait(WAIT_S)

    def ended(self) -> int:
        """Wait until it has ended by itself, and return the exit code."""
        assert self._popen is not None
        return self._popen.wait(WAIT_S)

    def wait_killed(self) -> None:
        """Wait until a failpoint has killed it."""
        assert self._popen is not None
        assert self._popen.wait(WAIT_S) == -signal.SIGKILL, self.log.read_text()[-3000:]


class Broker(Process):
    """A broker on a port of its own, the same after every restart; embedded, or on a Postgres."""

    def __init__(self, root: Path, database_url: str | None = None) -> None:
        self.port = free_port()
        # Where something else listens that passes connections on to this broker.
        self.front_port = 0
        self.data = root / "broker"
        self.database_url = database_url
        arguments = ["broker", "up", "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(self.data)]
        if database_url is not None:
            arguments += ["--database-url", database_url]
        super().__init__(arguments, root / "broker-home", root / "broker.log")
        self.url = f"ws://127.0.0.1:{self.port}"
        # The certificate that it shows, if it speaks TLS.
        self.tls: str | None = None

    def stand_behind(self, port: int) -> None:
        """Tell the broker, from its next start on, that it is dialled at another port too."""
        self.front_port = port
        self.environment["CLAUDEMESH_BROKER_PUBLIC_URL"] = f"ws://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether it answers."""
        if self.tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        else:
            context = ssl.create_default_context(cafile=self.tls)
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=WAIT_S, context=context)
        with closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200

    def ready(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.running, self.log.read_text()[-3000:]
            return self.is_ready()

        until(answers, "the broker is ready")


class Daemon(Process):
    """One member's daemon."""

    def __init__(self, root: Path, name: str, slug: str) -> None:
        home = root / name
        super().__init__(["daemon", "up"], home, root / f"{name}.log")
        self.name = name
        self.root = home / "daemon" / slug
        self.sock = self.root / "sock"

    def connection(self) -> http.client.HTTPConnection:
        """A connection to the local API, opened by its first request."""
        return _SocketConnection(self.sock)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request to the local API: status and JSON."""
        connection = self.connection()
        with closing(connection):
            raw = None if body is None else json.dumps(body)
            all_headers = {"Content-Type": "application/json", **(headers or {})} if raw else headers or {}
            connection.request(method, path, raw, all_headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def send(self, to: str, message: str, **fields: Any) -> tuple[int, Any]:
        """POST /v1/send."""
        return self.request("POST", "/v1/send", {"to": to, "message": message, **fields})

    def get_across(self, message: dict[str, Any]) -> None:
        """Send a message and wait until the broker has taken it, longer than one request may wait."""
        status, body = self.request("POST", "/v1/send?wait_ms=30000", message)
        assert (status, body["status"]) == (200, "done") or status == 202, body
        if status == 202:
            message_id = body["client_message_id"]
            until(lambda: self.outbox()[message_id]["status"] == "done", "the broker has taken it")

    def post(self, topic: str, message: str, **fields: Any) -> tuple[int, Any]:
        """POST /v1/topic/post."""
        return self.request("POST", "/v1/topic/post", {"topic": topic, "message": message, **fields})

    def inbox(self) -> list[dict[str, Any]]:
        """Every message received, oldest first."""
        items: list[dict[str, Any]] = []
        after = ""
        while True:
            _, page = self.request("GET", f"/v1/inbox?limit=500{after}")
            items += page["items"]
            if page["next"] is None:
                return items
            after = f"&after={page['next']}"

    def outbox(self) -> dict[str, dict[str, Any]]:
        """Every row by its client_message_id."""
        items: dict[str, dict[str, Any]] = {}
        after = ""
        while True:
            _, page = self.request("GET", f"/v1/outbox?limit=500{after}")
            items |= {item["client_message_id"]: item for item in page["items"]}
            if page["next"] is None:
                return items
            after = f"&after={page['next']}"

    def ready(self, *, connected: bool = True) -> None:
        """Wait until the API answers and, if wanted, the link is up and the members are known."""

        def answers() -> bool:
            assert self.running, self.log.read_text()[-3000:]
            status, health = self.request("GET", "/v1/health")
            is_linked = health["connected"] and (self.root / "peers.json").exists()
            return status == 200 and (is_linked or not connected)

        until(answers, f"{self.name} is ready")


class Mesh:
    """A broker and daemons; `alice` made the mesh, the others joined."""

    slug = "demo"

    def __init__(self, root: Path, database_url: str | None = None, *, forked: bool = True) -> None:
        self.root = root
        self.forked = forked
        self.broker = Broker(root, database_url)
        self.broker.forked = forked
        self.daemons: dict[str, Daemon] = {}
        # The program that `cli` runs.
        self.program = _PROGRAM

    def cli(self, daemon: Daemon, *arguments: str, prefix: Sequence[str] = ()) -> str:
        """Run a command of the CLI as that host; returns its standard output."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
            "CLAUDEMESH_HOME": str(daemon.home),
            "PYTHONPATH": str(REPOSITORY),
        }
        is_plain = not prefix and self.program == _PROGRAM
        if is_plain and (nursery := nursery_for(environment)):
            code, out, error = nursery.run(arguments, environment, WAIT_S)
        else:
            done = subprocess.run(
                [*prefix, *self.program, *arguments],
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                text=True,
                timeout=WAIT_S,
            )
            code, out, error = done.returncode, done.stdout, done.stderr
        assert code == 0, (arguments, out, error)
        return out

    def add(self, name: str, *, prefix: Sequence[str] = ()) -> Daemon:
        """A new member: the first makes the mesh, later ones join by invite. Not started yet."""
        daemon = Daemon(self.root, name, self.slug)
        daemon.forked = self.forked
        if not self.daemons:
            token = str(self.broker.data / "admin_token")
            create = ["mesh", "create", self.slug, "--broker", self.broker.url, "--name", name]
            self.cli(daemon, *create, "--admin-token-file", token, prefix=prefix)
        else:
            owner = next(iter(self.daemons.values()))
            invite = json.loads(self.cli(owner, "invite", "create", "--json"))["invite"]
            self.cli(daemon, "join", invite, "--name", name, prefix=prefix)
        # The longest wait between two attempts to connect: tests restart brokers all the time.
        (daemon.root / "config.toml").write_text("[reconnect]\nmax_backoff_ms = 500\n")
        self.daemons[name] = daemon
        return daemon

    def heal(self) -> None:
        """Start what a test that failed has left dead or armed, and wait until all are connected."""
        for process in (self.broker, *self.daemons.values()):
            if process.running and process.failpoints:
                process.kill()
            if not process.running:
                process.start()
        self.broker.ready()
        for daemon in self.daemons.values():
            daemon.ready()

    def stop(self) -> None:
        """Kill what still runs."""
        for process in (*self.daemons.values(), self.broker):
            if process.running:
                process.kill()


@contextmanager
def mesh(
    *names: str,
    start: bool = True,
    database_url: str | None = None,
    broker_prefix: Sequence[str] = (),
    front: bool = False,
    forked: bool = True,
) -> Generator[Mesh]:
    """A mesh with these members, all of them started and connected unless told otherwise.

    `broker_prefix` is run in front of the broker's command: it sets limits, for example. With `front` the
    broker knows of a second port, at which a proxy may listen. An inherited property of this process, a
    limit for example, it has only when it is not `forked` by the nursery.
    """
    # A short folder: a socket path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="cm-"))
    made = Mesh(root, database_url, forked=forked)
    made.broker.prefix = list(broker_prefix)
    if front:
        made.broker.stand_behind(free_port())
    try:
        made.broker.start()
        made.broker.ready()
        for name in names:
            made.add(name)
        if start:
            for daemon in made.daemons.values():
                daemon.start()
            for daemon in made.daemons.values():
                daemon.ready()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root, ignore_errors=True)
