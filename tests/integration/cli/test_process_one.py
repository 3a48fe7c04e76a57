"""Process 1 of a PID namespace, as in a container: it reaps orphans, and no exit code of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.hooks.hooked import Host
from tests.support.pid_namespaces import PID_NAMESPACE, enter
from tests.support.processes import REPOSITORY, Process, mesh, until
from tests.support.waiting import WAIT_S


def first(process: Process) -> int:
    """The process that is number 1 inside, by its number here."""
    [pid] = children(process.pid)
    assert f"NSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text()
    return pid


def children(pid: int) -> list[int]:
    """The children of a process, dead ones included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(folder.name))
    return found


def orphan_dies_and_is_gone(pid: int) -> None:
    """An orphan that a command like `docker exec` leaves: adopted, ended, and no zombie."""
    before = set(children(pid))
    subprocess.run([*enter(pid), "sh", "-c", "sleep 600 &"], check=True, timeout=WAIT_S)
    [orphan] = until(lambda: set(children(pid)) - before, "the orphan is adopted")
    os.kill(orphan, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan is reaped")


def test_broker_and_daemon_as_process_1_reap_orphans_and_run_hooks() -> None:
    """A hook runs before and after orphans died, and also after its fork server was killed."""
    with mesh("alice", "bob", start=False) as made:
        made.broker.stop()
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        bob.prefix = made.broker.prefix = PID_NAMESPACE
        host = Host(bob)
        host.script("on-dm", "cat >/dev/null; echo ran >>$OUT/ran; (sleep 0.01 &)")
        host.manifest(on_dm={})
        made.broker.start()
        made.broker.ready()
        for daemon in (alice, bob):
            daemon.start()
        for daemon in (alice, bob):
            daemon.ready()
        broker, daemon_pid = first(made.broker), first(bob)
        assert alice.send("bob", "one")[0] == 202
        assert host.ran("on-dm")["exit"] == 0
        for pid in (broker, daemon_pid):
            for _ in range(3):
                orphan_dies_and_is_gone(pid)
        assert alice.send("bob", "two")[0] == 202
        assert host.ran("on-dm", 2)["exit"] == 0
        for child in children(daemon_pid):
            os.kill(child, signal.SIGKILL)
        until(lambda: not children(daemon_pid), "the killed fork server is reaped")
        assert alice.send("bob", "three")[0] == 202
        until(lambda: host.told("ran").count("ran") == 3, "the hook has run again")
        orphan_dies_and_is_gone(daemon_pid)
        os.kill(daemon_pid, signal.SIGTERM)
        os.kill(broker, signal.SIGTERM)
        assert bob.ended() == made.broker.ended() == 0


_CODES = """
import os, signal, subprocess
from claudemesh.runtime.children import reap_orphans, spawn

assert os.getpid() == 1
# A dead child of its own stands before the orphans, so a reaper that stops there reaps none.
own = spawn(["sh", "-c", "exit 7"])
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
dead = 0
for _ in range(3):
    # The orphan outlives its parent, which would reap it otherwise.
    middle = subprocess.run(
        ["sh", "-c", "sleep 600 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True
    )
    orphan = int(middle.stdout)
    os.kill(orphan, signal.SIGKILL)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
assert reap_orphans() == 3
assert own.wait() == 7
# A `Popen` that has its code names a number that an orphan may have now.
assert reap_orphans() == 0
print("held")
"""


def test_reaping_leaves_the_exit_code_of_a_child_to_the_process_that_started_it() -> None:
    done = subprocess.run(
        [*PID_NAMESPACE, sys.executable, "-c", _CODES],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
