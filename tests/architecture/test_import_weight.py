"""Import weight of commands: held by the names of modules, not by time."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.waiting import WAIT_S

ROOT = Path(__file__).parents[2]
ALLOWED = {"claudemesh", "click", "orjson"}
HEAVY = {
    "asyncio",
    "sqlite3",
    "multiprocessing",
    "concurrent.futures",
    "uvloop",
    "nacl",
    "msgspec",
    "rich",
    "ssl",
}
# The server of a session ends by `os._exit`.
_REPORT = """
import json, os, sys
from claudemesh.__main__ import main
sys.argv[1:] = json.loads(sys.argv[1])
end = os._exit
def report(code):
    print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr, flush=True)
    end(code)
os._exit = report
report(main())
"""
_ANSWERS = {
    "/v1/send": {"status": "queued", "client_message_id": "one"},
    "/v1/inbox": {"items": [], "next": None},
    "/v1/sessions": {"items": [], "next": None, "session_id": "one", "name": "api"},
    "/v1/sessions/one": {},
    "/v1/sessions/one/heartbeat": {},
    "/v1/health": {
        "name": "bob",
        "mesh": "demo",
        "connected": True,
        "queue_depth": 0,
        "inflight": 0,
        "dead": 0,
    },
}


class _Answering(http.server.BaseHTTPRequestHandler):
    """A daemon as far as a command can tell."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.dumps(_ANSWERS[self.path.partition("?")[0]], separators=(",", ":")).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_DELETE = do_POST

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def home() -> Generator[Path]:
    """A home with one mesh whose daemon answers."""
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        mesh = Path(folder) / "daemon" / "demo"
        mesh.mkdir(parents=True)
        (mesh / "membership.json").write_text("{}")
        with socketserver.ThreadingUnixStreamServer(str(mesh / "sock"), _Answering) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield Path(folder)
            server.shutdown()
            thread.join()


def imported(home: Path, *arguments: str, stdin: str = "") -> set[str]:
    """The modules that a command has imported when it is done. Each line of its input has an answer."""
    with subprocess.Popen(
        [sys.executable, "-c", _REPORT, json.dumps(arguments)],
        cwd=ROOT,
        env={**os.environ, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stdin)
        process.stdin.flush()
        # A server ends with its input, also within a call.
        for _ in stdin.splitlines():
            process.stdout.readline()
        _, error = process.communicate(timeout=WAIT_S)
    code, modules = json.loads(error.splitlines()[-1])
    assert code == 0, error
    return set(modules)


def at_start() -> set[str]:
    """The modules that the interpreter's own site-packages load at every start."""
    command = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "bob", "-", "--allow-empty"],
        ["send", "bob", "hello", "--meta", "{}"],
        ["inbox"],
        ["version"],
        ["hook", "session-start"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_command_imports_only_what_it_needs(home: Path, arguments: list[str]) -> None:
    """click and orjson, nothing else."""
    modules = imported(home, *arguments)
    foreign = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - ALLOWED
    assert {name for name in foreign if not name.startswith("_")} - at_start() == set()
    assert modules & HEAVY == set()
    layers = ("claudemesh.daemon", "claudemesh.broker", "claudemesh.protocol")
    constants = {"claudemesh.protocol", "claudemesh.protocol.wire"}
    assert [name for name in modules if name.startswith(layers) and name not in constants] == []


def test_a_plain_send_imports_no_library_at_all(home: Path) -> None:
    """Scripts call it in a loop: it is served ahead of click and orjson."""
    modules = imported(home, "send", "bob", "hello")
    assert modules & {"click", "orjson", "http.client", "socket"} == set()
    assert {name for name in modules if name.startswith("claudemesh.")} <= {
        "claudemesh.__main__",
        "claudemesh.cli",
        "claudemesh.cli.fast_send",
        "claudemesh.runtime",
        "claudemesh.runtime.trust",
    }


@pytest.mark.parametrize("options", [[], ["--mesh", "demo"], ["--mesh=demo"]], ids="-".join)
def test_the_server_of_a_session_imports_a_fraction_of_the_standard_library(
    home: Path, options: list[str]
) -> None:
    """Each session has such a process, which stays: it registers, and calls a tool."""
    call = {"name": "mesh_status", "arguments": {}}
    asked = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate((("tools/list", {}), ("tools/call", call)))
    ]
    modules = imported(home, "mcp", *options, stdin="".join(f"{json.dumps(one)}\n" for one in asked))
    assert "claudemesh.client.local" in modules, "the tool was called"
    unwanted = {"click", "orjson", "dataclasses", "inspect", "http", "email", "subprocess", "logging"}
    assert modules & (unwanted | HEAVY) - at_start() == set()
