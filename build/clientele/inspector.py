"""The MCP Inspector's command line: it checks each answer of the server, and each schema of a tool."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from typing import Any, Final

from clientele.places import ARCHIVE, node_program, script
from clientele.suites import Suite, reached
from tests.support.processes import Mesh

_PACKAGE: Final = "@modelcontextprotocol/inspector"
_SCRIPT: Final = f"{_PACKAGE}/clients/launcher/build/index.js"
_LIMIT_S: Final = 120


def _asked(hosts: Mesh, method: str, *options: str) -> Any:
    """Ask the server of a session at bob by the Inspector, and return the answer. A complaint fails."""
    node, program = node_program(), script(_SCRIPT)
    assert node is not None and program is not None
    with tempfile.TemporaryDirectory(prefix="cm-") as home:
        command = [str(node), str(program), "--cli", str(ARCHIVE), "mcp", "--method", method, *options]
        environment = {
            "HOME": home,
            "PATH": os.environ["PATH"],
            "CLAUDEMESH_HOME": str(hosts.daemons["bob"].home),
        }
        given = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        ran = subprocess.run(
            [*command, *given],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
    assert (ran.returncode, ran.stderr) == (0, ""), f"{method}: {ran.returncode} {ran.stderr} {ran.stdout}"
    return json.loads(ran.stdout)


def lists(hosts: Mesh) -> None:
    """The schemas of the tools are portable, and it has nothing to complain about."""
    found = {tool["name"] for tool in _asked(hosts, "tools/list", "--strict")["tools"]}
    assert found >= {"mesh_send", "mesh_inbox", "mesh_ack", "mesh_peers", "mesh_wait", "mesh_status"}


def calls(hosts: Mesh) -> None:
    """A call of each kind is answered as the protocol has it."""
    status = _text(_asked(hosts, "tools/call", "--tool-name", "mesh_status"))
    assert "This session is bob/" in status, status
    given = ("to=alice", "message=hello", "idempotency_key=inspected")
    options = [part for one in given for part in ("--tool-arg", one)]
    assert "Sent, id inspected" in _text(_asked(hosts, "tools/call", "--tool-name", "mesh_send", *options))
    reached(hosts, "inspected", "delivered", sender="bob")
    assert _text(_asked(hosts, "tools/call", "--tool-name", "mesh_inbox")) == "No new messages."


def _text(answer: Any) -> str:
    return str(answer["content"][0]["text"])


def suites() -> list[Suite]:
    """Return the suite of the Inspector."""
    package, node = script(f"{_PACKAGE}/package.json"), node_program()
    version = None if package is None or node is None else str(json.loads(package.read_text())["version"])
    return [Suite("MCP Inspector", "inspector", version, {"tools": lists, "calls": calls})]
