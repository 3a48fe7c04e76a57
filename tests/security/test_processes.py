"""`daemon down`, `reload` and `restart` act on the process that answers on the socket, and on no other.

A home may stand on a volume that several containers share, and a number that was a daemon's may be a
stranger's. The tests make real PID namespaces, and strangers that have the daemon's number.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.pid_namespaces import PID_NAMESPACE
from tests.support.processes import REPOSITORY, Daemon, mesh
from tests.support.waiting import WAIT_S

_STRANGER = """
import json, os, signal, subprocess, sys

def stranger(pid):
    # A process under a number of our choice; a signal would end it.
    for _ in range(100):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        process = subprocess.Popen(["sleep", "600"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise SystemExit(f"number {pid} is taken")
"""

_COMMANDS = (
    _STRANGER
    + """
pid, *commands = json.loads(sys.argv[1])
process = stranger(pid)
found = []
for command in commands:
    done = subprocess.run([sys.executable, "-m", "claudemesh", *command], capture_output=True, text=True)
    found.append([done.returncode, json.loads(done.stdout), process.poll()])
print(json.dumps(found))
"""
)


def inside(daemon: Daemon, pid: int, *commands: list[str]) -> list[Any]:
    """Run commands in another PID namespace beside a stranger with this number: code, answer, its end."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
        "CLAUDEMESH_HOME": str(daemon.home),
        "PYTHONPATH": str(REPOSITORY),
    }
    asked = json.dumps([pid, *([*command, "--json"] for command in commands)])
    done = subprocess.run(
        [*PID_NAMESPACE, sys.executable, "-c", _COMMANDS, asked],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S * 2,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_down_from_another_namespace_ends_the_daemon_and_no_stranger() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        assert alice.send("alice", "kept")[0] == 200
        [[code, answer, stranger]] = inside(alice, alice.pid, ["daemon", "down"])
        assert (code, answer["status"], stranger) == (0, "stopped", None)
        # Ended orderly, before the command said so.
        assert alice.ended() == 0


def test_reload_from_another_namespace_reaches_the_daemon_and_no_stranger() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        (alice.root / "config.toml").write_text("[metrics]\nprometheus_enabled = false\n")
        [[code, answer, stranger]] = inside(alice, alice.pid, ["daemon", "reload"])
        assert (code, answer["status"], answer["reloads"], stranger) == (0, "reloaded", 1, None)
        assert alice.request("GET", "/v1/metrics")[0] == 404


def test_restart_in_another_namespace_is_refused_and_changes_nothing() -> None:
    """The daemon would come back in the container of who asked, not in its own."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        [[code, answer, stranger]] = inside(alice, alice.pid, ["daemon", "restart"])
        assert (code, answer["error"], stranger) == (78, "daemon_elsewhere", None)
        assert "Restart it there" in answer["message"]
        assert alice.request("GET", "/v1/health")[1]["pid"] == alice.pid


def test_no_number_of_another_namespace_is_shown_as_one_of_this() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        [[code, answer, _], [_, found, _]] = inside(alice, alice.pid, ["daemon", "ps"], ["doctor"])
        assert (code, answer["items"][0]["state"], answer["items"][0]["pid"]) == (0, "up", None)
        [shown] = [item["detail"] for item in found["items"] if item["check"] == "daemon"]
        assert shown.startswith("in another PID namespace, up for")


def test_down_from_outside_ends_a_daemon_of_an_inner_namespace() -> None:
    """It calls itself by a number that is another process's here, init's for one."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        alice.prefix = PID_NAMESPACE
        alice.start()
        alice.ready()
        own = alice.request("GET", "/v1/health")[1]["pid"]
        [shown] = json.loads(made.cli(alice, "daemon", "ps", "--json"))["items"]
        assert own != shown["pid"]
        assert f"NSpid:\t{shown['pid']}\t{own}\n" in Path(f"/proc/{shown['pid']}/status").read_text()
        assert json.loads(made.cli(alice, "daemon", "down", "--json"))["status"] == "stopped"
        assert alice.ended() == 0


def test_a_pid_file_that_an_earlier_run_left_names_nobody() -> None:
    """Killed daemons leave it; the number is a stranger's by then."""
    with mesh("alice") as made, subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            alice = made.daemons["alice"]
            alice.kill()
            (alice.root / "pid").write_text(f"{stranger.pid}\n")
            assert json.loads(made.cli(alice, "daemon", "down", "--json"))["status"] == "not running"
            assert stranger.poll() is None
        finally:
            stranger.kill()


_RECYCLED = (
    _STRANGER
    + """
import pathlib, tempfile
from claudemesh.client import process as module

folder = tempfile.mkdtemp(prefix="cm-")
path = pathlib.Path(folder) / "sock"
code = "import socket, sys; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); print(flush=True); input()"
listener = subprocess.Popen(
    [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
listener.stdout.readline()
by_kernel, by_number = module.find_process(path), module._opened(path, listener.pid)
assert by_kernel.pid == by_number.pid == listener.pid
assert not by_kernel.ended_within(0) and not by_number.ended_within(0)
listener.kill()
listener.wait()
other = stranger(listener.pid)
for found in (by_kernel, by_number):
    assert found.ended_within(0)
    found.signal(signal.SIGKILL)
# Somebody else listens there now: the number is not that one's.
path.unlink()
second = subprocess.Popen(
    [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
second.stdout.readline()
assert module._opened(path, listener.pid) is None
assert other.poll() is None
print("held")
"""
)


@pytest.mark.parametrize("round_", range(3))
def test_a_signal_never_reaches_who_has_the_number_of_a_daemon_that_ended(round_: int) -> None:
    done = subprocess.run(
        [*PID_NAMESPACE, sys.executable, "-c", _RECYCLED],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_only_the_socket_stops_and_reloads() -> None:
    """A bearer of the loopback may do neither, and a hook has no token for it."""
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
        alice.start()
        alice.ready()
        port = (alice.root / "http.port").read_text().strip()
        token = (alice.root / "local_token").read_text().strip()
        for route in ("shutdown", "reload"):
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=WAIT_S)
            with closing(connection):
                connection.request("POST", f"/v1/{route}", headers={"Authorization": f"Bearer {token}"})
                response = connection.getresponse()
                assert (response.status, json.loads(response.read())["error"]) == (403, "socket_only")
        assert alice.request("GET", "/v1/health")[1]["config"]["reloads"] == 0
