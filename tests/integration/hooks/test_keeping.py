"""The fork server alone: with namespaces and without, nothing of a hook stays; bubblewrap hides the home."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from claudemesh.daemon.hooks import fork_server
from claudemesh.daemon.hooks.worker_pool import Command, ForkServerLost, WorkerPool
from tests.integration.hooks.hooked import Host, own, processes
from tests.integration.hooks.test_running import send
from tests.support.processes import until

ISOLATIONS = ["auto", "none"]


@asynccontextmanager
async def worker_pool(isolation: str, size: int = 8) -> AsyncGenerator[WorkerPool]:
    made = WorkerPool("deny", size, isolation)
    try:
        yield made
    finally:
        made.close()


def shell(script: str, *, timeout_s: float = 10, limit: int = 65_536, stdin: bytes = b"") -> Command:
    return Command(["/bin/sh", "-c", own(script)], {"PATH": "/usr/bin:/bin"}, "/", stdin, timeout_s, limit)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize(
    "script",
    [
        "sleep 981 & exit 0",
        "(setsid sleep 981 &) ; exit 0",
        "(setsid sh -c 'trap \"\" TERM HUP; sleep 981; sleep 981' &); sleep 981 & exit 0",
        "setsid sh -c 'setsid sleep 981 & setsid sleep 981 & wait' & exit 0",
    ],
)
async def test_nothing_stays_with_namespaces_or_without(isolation: str, script: str) -> None:
    """A new session, an orphan, a process that ignores signals: all end with the hook."""
    async with worker_pool(isolation) as made:
        outcome = await made.run(shell(script))
        assert (outcome.exit, outcome.survivors > 0) == (0, True)
        assert processes("sleep 981") == []


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_the_outcome_says_how_it_ended(isolation: str) -> None:
    """Exit code, signal, output, errors, input; a hook that is not there was not started."""
    async with worker_pool(isolation) as made:
        outcome = await made.run(shell("cat; echo no >&2; exit 3", stdin=b"x" * 200_000, limit=10))
        assert (outcome.exit, outcome.stdout, outcome.stdout_bytes) == (3, b"x" * 10, 200_000)
        assert (outcome.stderr, outcome.word) == (b"no\n", "3")
        assert (await made.run(shell("kill -KILL $$"))).signal == signal.SIGKILL
        assert (await made.run(shell("exit 0", stdin=b"x" * 200_000))).exit == 0
        absent = await made.run(Command(["/nowhere/hook"], {}, "/", b"", 1, 10))
        assert (absent.word, absent.error) == ("not_started", "No such file or directory")


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_hook_that_ends_in_time_after_sigterm_is_not_killed(isolation: str) -> None:
    """SIGTERM comes first, and five seconds to tidy up."""
    async with worker_pool(isolation) as made:
        outcome = await made.run(shell("trap 'echo bye; exit 5' TERM; sleep 981 & wait", timeout_s=3))
        assert (outcome.exit, outcome.stdout, outcome.timed_out) == (5, b"bye\n", True)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_run_that_is_cancelled_ends_with_all_of_it(isolation: str) -> None:
    """The daemon that stops leaves nothing running."""
    async with worker_pool(isolation) as made:
        run = asyncio.get_running_loop().create_task(made.run(shell("setsid sleep 982 & sleep 982")))
        while len(processes("sleep 982")) < 2:  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await asyncio.to_thread(until, lambda: not processes("sleep 982"), "they are gone")
        assert (await made.run(shell("exit 0"))).exit == 0


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_fork_server_that_is_killed_is_replaced(isolation: str) -> None:
    """The run is lost and says so; the next has a new fork_server."""
    async with worker_pool(isolation) as made:
        run = asyncio.get_running_loop().create_task(made.run(shell("sleep 983")))
        while not processes("sleep 983"):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.01)
        assert made.pid is not None
        if isolation == "auto":
            os.kill(made.pid, signal.SIGKILL)
            with pytest.raises(ForkServerLost):
                await run
            await asyncio.to_thread(until, lambda: not processes("sleep 983"), "they are gone")
        else:
            # Without a namespace the workers outlive their parent, and end when the daemon lets go.
            os.kill(made.pid, signal.SIGKILL)
            run.cancel()
            await asyncio.to_thread(until, lambda: not processes("sleep 983"), "they are gone")
        assert (await made.run(shell("exit 0"))).exit == 0


@pytest.mark.parametrize("home", [-1, 0])
def test_a_fork_server_that_cannot_fork_goes_on(home: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the worker that was not made is closed; in a namespace, the server is back in its own."""
    calls: list[str] = []

    def no_room() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_room)
    monkeypatch.setattr(fork_server, "_libc", lambda name, *_: calls.append(name))
    ours, theirs = socket.socketpair()
    control, other = socket.socketpair()
    with ours, theirs, control, other:
        fork_server._fork_worker(theirs.fileno(), control, home, fork_server.Confinement(False, False))
        assert control.fileno() >= 0
    assert calls == ([] if home < 0 else ["unshare", "setns"])


async def test_no_more_than_so_many_run_at_a_time(tmp_path: Path) -> None:
    """The rest wait for a place. Each run notes how many it sees, itself included."""
    script = f"cd {tmp_path}; f=$(mktemp run.XXXXXX); ls run.* | wc -l >>seen; sleep 0.1; rm $f"
    async with worker_pool("auto", size=3) as made:
        outcomes = await asyncio.gather(*[made.run(shell(script)) for _ in range(9)])
        assert [outcome.exit for outcome in outcomes] == [0] * 9
        seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
        assert len(seen) == 9
        assert max(seen) <= 3


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_shows_the_system_and_hides_the_home(alice: Host, bob: Host) -> None:
    """Keys and databases are not there, the system is read-only, the socket and the token work."""
    bob.script(
        "on-dm.py",
        "",
    ).write_text(
        """#!/usr/bin/env python3
import http.client, json, os, pathlib, socket, sys
event = json.load(sys.stdin)
sock = os.environ["CLAUDEMESH_DAEMON_SOCK"]
home = pathlib.Path(sock).parent
seen = {"home": sorted(os.listdir(home)), "root": sorted(os.listdir("/"))}
try:
    pathlib.Path("/usr/here").touch()
    seen["usr"] = "written"
except OSError as error:
    seen["usr"] = error.strerror
link = http.client.HTTPConnection("localhost")
link.sock = socket.socket(socket.AF_UNIX)
link.sock.connect(sock)
bearer = {"Authorization": "Bearer " + os.environ["CLAUDEMESH_CAPABILITY_TOKEN"]}
bearer["Content-Type"] = "application/json"
body = {"to": event["sender_pubkey"], "message": json.dumps(seen)}
link.request("POST", "/v1/send", json.dumps(body), bearer)
sys.exit(0 if link.getresponse().status == 202 else 1)
"""
    )
    bob.manifest(on_dm={"sandbox": "bubblewrap", "capability_token_scope": ["dm:send:sender"]})
    bob.reload()
    send(alice, "look around")
    line = bob.ran("on-dm")
    problem = bob.folder / "stderr" / "on-dm"
    assert line["exit"] == 0, problem.read_text() if problem.exists() else line
    until(lambda: any("root" in (item["body"] or "") for item in alice.daemon.inbox()), "it has told")
    [told] = [item["body"] for item in alice.daemon.inbox() if "root" in (item["body"] or "")]
    seen = json.loads(told)
    assert seen["home"] == ["hooks", "sock"]
    assert seen["usr"] == "Read-only file system"
    assert "usr" in seen["root"]
    assert "root" not in seen["root"]
    assert Path("/root").exists()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_starts_every_time(alice: Host, bob: Host) -> None:
    """Its pids are those of the /proc that it sees, so that it maps its own user and no other."""
    bob.script("on-dm", "exit 0")
    bob.manifest(on_dm={"sandbox": "bubblewrap"})
    bob.reload()
    for number in range(20):
        send(alice, f"run {number}")
    bob.ran("on-dm", 20)
    assert [line["exit"] for line in bob.runs("on-dm")] == [0] * 20


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_capability_token_stands_in_no_command_line(alice: Host, bob: Host) -> None:
    """Every user of the machine can read command lines."""
    bob.script("on-dm", "sleep 982")
    bob.manifest(
        on_dm={"sandbox": "bubblewrap", "capability_token_scope": ["dm:send:sender"], "timeout_s": 600}
    )
    bob.reload()
    send(alice, "wait")
    until(lambda: processes("sleep 982"), "the hook runs")
    lines = processes("")
    assert any("bwrap" in line for line in lines)
    assert [line for line in lines if "CAPABILITY_TOKEN" in line] == []


async def test_a_hook_sees_the_processes_of_its_own_namespace_alone() -> None:
    """The kernel allows a /proc of its own here, for root and for ordinary users."""
    async with worker_pool("auto") as made:
        assert (await made.isolation()).pid_namespace
        outcome = await made.run(shell("ls -d /proc/[0-9]* | wc -l"))
        assert int(outcome.stdout) <= 5


@pytest.fixture
def door(tmp_path: Path) -> Generator[Path]:
    """A file that leads to the host's network namespace, as `ip netns` keeps one."""
    path = tmp_path / "host-net"
    path.touch()
    subprocess.run(["mount", "--bind", "/proc/self/ns/net", str(path)], check=True)
    subprocess.run(["nsenter", f"--net={path}", "true"], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could enter the namespace again")
async def test_root_in_a_hook_cannot_enter_the_network_of_the_host_again(door: Path) -> None:
    """`deny` holds for a daemon that runs as root, also where a file leads to the host's namespace."""
    async with worker_pool("auto") as made:
        assert (await made.isolation()).network_namespace
        for attempt in (f"nsenter --net={door} true", "unshare --mount true"):
            outcome = await made.run(shell(attempt))
            assert b"Operation not permitted" in outcome.stderr, attempt
