"""Sessions of agents: what receipts cost, how soon an idle session is woken, and the servers of sessions."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.archive import base_python
from benchmarks.idle import resident_kb
from benchmarks.lab import BODY, Caller, Lab, json_request, load_with, median_ms, received
from benchmarks.path import Watcher
from benchmarks.reading import fill_inbox
from benchmarks.size import size
from tests.support.claude_socket import ClaudeSocket, claude_socket
from tests.support.processes import REPOSITORY, Daemon, mesh, until
from tests.support.waiting import WAIT_S

_CALLERS = 64
_MESSAGES = size(9600, 640)
_LATENCIES = size(30, 2)
_STARTS = size(9, 1)
_SESSIONS = size(10, 2)
_INBOX = size(100_000, 1_000)
_WOKEN_MS = 50.0


def receipted(lab: Lab) -> tuple[float, float]:
    """Messages/s end to end when each asks to be told that it is shown; the ceiling asks for nothing."""
    plain = _rate(lab, {})
    return _rate(lab, {"receipt": "shown"}), plain


def _rate(lab: Lab, fields: dict[str, str]) -> float:
    before, started = received(lab.bob), time.perf_counter()
    request = json_request("/v1/send", {"to": "bob", "message": BODY, **fields})
    load_with(lab.alice, request, _CALLERS, _MESSAGES)
    until(lambda: received(lab.bob) >= before + _MESSAGES, "all of it has arrived")
    return _MESSAGES / (time.perf_counter() - started)


def local(lab: Lab) -> tuple[float, float]:
    """A message to a session of the same host by `mesh_send`, until its answer; the bound is 5 ms."""
    with _server(lab.alice) as server:
        times = [server.timed(to="alice/bench", message=f"{number}") for number in range(_LATENCIES)]
    return median_ms(times), 5.0


def woken(lab: Lab) -> tuple[float, float]:
    """From a send until an idle session of the other host has shown it, and a plain send + 50 ms."""
    plain, shown = [], []
    with (
        tempfile.TemporaryDirectory(prefix="cm-") as folder,
        claude_socket(Path(folder)) as claude,
        _server(lab.alice, claude.environment) as server,
        Caller(lab.bob) as caller,
        Watcher(lab.alice) as watcher,
    ):
        until(lambda: server.session()["reach"] == "push", "the session can be woken")
        to = f"alice/{server.session()['name']}"
        for number in range(_LATENCIES):
            started = time.perf_counter()
            caller.ask(json_request("/v1/send", {"to": "alice/none", "message": f"plain-{number}."}))
            watcher.wait_for(f"plain-{number}.".encode())
            plain.append(time.perf_counter() - started)
            started = time.perf_counter()
            caller.ask(json_request("/v1/send", {"to": to, "message": f"woken-{number}."}))
            _show(server, claude, number)
            shown.append(time.perf_counter() - started)
            # The bucket of the client holds thirty.
            claude.lines.clear()
    return median_ms(shown), median_ms(plain) + _WOKEN_MS


def _show(server: _Server, claude: ClaudeSocket, number: int) -> None:
    """Do what a client does with a push: its hook gets the text, and the text is with the model."""
    wanted, started = f"woken-{number}.", time.perf_counter()
    while not any(wanted in text for text in claude.texts):
        if time.perf_counter() - started > WAIT_S:
            raise TimeoutError(f"{wanted} was not pushed: {claude.texts}")
        time.sleep(0.0005)
    server.call("mesh_hook", event="UserPromptSubmit", session_id="bench", prompt=claude.texts[-1])


def hook_tool(_: Lab) -> tuple[float, float]:
    """A hook's call of the server, with 100,000 messages that its session was not told of before; the bound
    is 10 ms."""
    with mesh("bob") as made:
        bob = made.daemons["bob"]
        bob.stop()
        fill_inbox(bob.home / "daemon" / "demo" / "inbox.db", _INBOX)
        bob.start()
        bob.ready()
        with _server(bob) as server:
            times = [server.timed_hook() for _ in range(_LATENCIES)]
    return median_ms(times), 10.0


def first_answer(lab: Lab) -> tuple[float, float]:
    """From the start of claudemesh.pyz mcp to its first answer; the bound is 150 ms."""
    times = []
    for _ in range(_STARTS + 1):
        started = time.perf_counter()
        with _server(lab.alice, is_ready=False):
            times.append(time.perf_counter() - started)
    return median_ms(times[1:]), 150.0


def memory(lab: Lab) -> tuple[float, float]:
    """The resident memory of a server that has sent and read; the bound is 25 MB."""
    with _server(lab.alice) as server:
        server.call("mesh_send", to="alice/bench", message="x")
        server.call("mesh_inbox")
        return resident_kb(server.process.pid) / 1000, 25.0


def ten(lab: Lab) -> tuple[float, float]:
    """The resident memory of ten servers and their daemon; the bound is 250 MB."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_server(lab.alice)) for _ in range(_SESSIONS)]
        for server in servers:
            server.call("mesh_status")
        pids = [lab.alice.pid, *(server.process.pid for server in servers)]
        return sum(map(resident_kb, pids)) / 1000, 250.0


class _Server:
    """A server of a session, and the client's end of its pipes."""

    def __init__(self, process: subprocess.Popen[bytes], daemon: Daemon) -> None:
        self.process = process
        self._daemon = daemon
        self._last = 0

    def ask(self, method: str, **params: Any) -> Any:
        """Ask, and return the result."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self._last += 1
        body = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        self.process.stdin.write(json.dumps(body).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["result"]

    def call(self, tool: str, **arguments: str) -> None:
        """Call a tool that succeeds."""
        found = self.ask("tools/call", name=tool, arguments=arguments)
        assert not found["isError"], found

    def timed(self, **arguments: str) -> float:
        """Send; seconds."""
        started = time.perf_counter()
        self.call("mesh_send", **arguments)
        return time.perf_counter() - started

    def timed_hook(self) -> float:
        """Call the tool for hooks as behind a tool; seconds."""
        started = time.perf_counter()
        self.call("mesh_hook", event="PostToolUse", session_id="bench")
        return time.perf_counter() - started

    def session(self) -> dict[str, Any]:
        """The session, as the daemon lists it."""
        items = self._daemon.request("GET", "/v1/sessions")[1]["items"]
        found = (item for item in items if item["pid"] == self.process.pid)
        return dict(next(found, {"reach": "", "name": ""}))


@contextmanager
def _server(
    daemon: Daemon, environment: dict[str, str] | None = None, *, is_ready: bool = True
) -> Generator[_Server]:
    """A server that has answered once, and has told its tools when it `is_ready`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLAUDE", "PYTHON"))}
    command = [base_python(), "-IS", str(REPOSITORY / "dist/claudemesh.pyz"), "mcp"]
    with subprocess.Popen(
        command,
        env={**kept, "CLAUDEMESH_HOME": str(daemon.home), **(environment or {})},
        cwd=daemon.home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            server = _Server(process, daemon)
            info = {"name": "bench", "version": "1"}
            server.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
            if is_ready:
                server.ask("tools/list")
            yield server
        finally:
            process.kill()
