"""Hooks of a daemon that runs as an ordinary user: the same walls as for root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.integration.hooks.hooked import Host
from tests.support.processes import REPOSITORY, Mesh, mesh, until

USER = 12_345
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"

# It starts, and can start itself again.
_ASK = "import os, sys; os.access(sys.executable, os.X_OK) and print('%d.%d' % sys.version_info[:2])"
# Says in its answer what it could do.
_LOOK = """#!/usr/bin/python3 -IS
import json, os, pathlib, socket, sys
event = json.load(sys.stdin)
def tried(step):
    try:
        step()
        return "done"
    except OSError as error:
        return type(error).__name__
home = pathlib.Path(os.environ["CLAUDEMESH_DAEMON_SOCK"]).parent
seen = {
    "hook": event["hook"],
    "uid": os.getuid(),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "network": tried(lambda: socket.create_connection(("127.0.0.1", @PORT@), 2).close()),
    "keys": tried((home / "keypair.json").read_bytes),
}
print(json.dumps({"reply": json.dumps(seen)}))
"""


def python_for_user() -> str | None:
    """A Python of this version that the user can run; root's own may lie below root's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        ask = [*AS_USER, python, "-c", _ASK]
        try:
            done = subprocess.run(ask, capture_output=True, text=True, cwd="/")
        except OSError:
            continue
        if done.stdout.strip() == _VERSION:
            return python
    return None


def give(made: Mesh, name: str, python: str) -> Host:
    """Let a member's daemon be the user's: its home, its process, its Python."""
    daemon = made.daemons[name]
    host = Host(daemon)
    for path in (daemon.home, *daemon.home.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    made.root.chmod(0o711)
    daemon.prefix = AS_USER
    daemon.command = [python, "-m", "tests.support.armed"]
    daemon.environment["PYTHONPATH"] = f"{REPOSITORY}:{sysconfig.get_path('purelib')}"
    daemon.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return host


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; else all tests show it")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_hooks_of_an_ordinary_user_are_kept_apart_and_sandboxed() -> None:
    """Without network, among their own processes, and in the sandbox without the keys; every time."""
    python = python_for_user()
    if python is None:
        pytest.skip(f"no Python {_VERSION} that an ordinary user can run")
    times = 5
    with mesh("alice", "bob", start=False) as made:
        alice, host = made.daemons["alice"], give(made, "bob", python)
        for name in ("on-dm", "on-message"):
            path = host.folder / name
            path.write_text(_LOOK.replace("@PORT@", str(made.broker.port)))
            path.chmod(0o700)
            os.chown(path, USER, USER)
        host.manifest(on_dm={"sandbox": "bubblewrap", "allow_reply": True}, on_message={"allow_reply": True})
        os.chown(host.folder / "hooks.toml", USER, USER)
        for daemon in made.daemons.values():
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        assert f"Uid:\t{USER}\t" in Path(f"/proc/{host.daemon.pid}/status").read_text()
        for number in range(times):
            assert alice.send("bob", f"look {number}")[0] in (200, 202)
        until(lambda: len(alice.inbox()) >= 2 * times, "every hook has answered")
        seen = [json.loads(item["body"]) for item in alice.inbox()]
        assert host.log("hook_unenforceable") == []
    assert sorted(one["hook"] for one in seen) == ["on-dm"] * times + ["on-message"] * times
    assert {one["uid"] for one in seen} == {USER}
    # No process listens on the sandbox's own loopback; elsewhere there is no loopback at all.
    assert {one["network"] for one in seen} <= {"ConnectionRefusedError", "OSError"}
    assert {one["keys"] for one in seen if one["hook"] == "on-dm"} == {"FileNotFoundError"}
    assert max(one["processes"] for one in seen) <= 5
