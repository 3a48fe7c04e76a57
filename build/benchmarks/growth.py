"""A mesh that has grown: 20,000 members in its directory, 2,000 of them connected to one broker.

The members that are connected are lean (crowd.py), in two processes. Everything else is real: the broker's
process, its disk, the WebSockets.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab import HERE, Lab, unlimit
from benchmarks.size import size
from claudemesh.protocol.keys import Identity
from tests.support.crowd import fill
from tests.support.processes import REPOSITORY, Broker, Mesh, mesh, until
from tests.support.wspeer import make_identity

MEMBERS = size(20_000, 60)
CONNECTED = size(2_000, 10)
# Members that are not connected. The others of `MEMBERS` have left.
AWAY = size(2_000, 10)
_PROCESSES = 2
_WAIT_S = 400.0
_CLAUDEMESH = [sys.executable, "-m", "claudemesh"]


@dataclass(frozen=True)
class Kept:
    """A member that will connect."""

    name: str
    member_id: str
    identity: Identity


def fill_mesh(database: Path, members: int, connected: int) -> tuple[str, list[Kept]]:
    """Write members into a stopped broker's database; returns the mesh's id and those that will connect."""
    with closing(sqlite3.connect(database)) as raw, raw:
        unlimit(raw)
        mesh_id: str = raw.execute("SELECT id FROM mesh").fetchone()[0]
    identities = [make_identity() for _ in range(connected)]
    here = fill(database, mesh_id, connected, "m", identities=identities)
    fill(database, mesh_id, AWAY, "away")
    fill(database, mesh_id, members - connected - AWAY, "left", status="left", ephemeral=True)
    kept = [Kept(one.name, one.id, identity) for one, identity in zip(here, identities, strict=True)]
    return mesh_id, kept


class Crowds:
    """Members in processes of their own, and what they have seen together."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def tell(self, command: str) -> dict[str, Any]:
        """Tell all of them, and return what they have seen: counts are sums, moments the last."""
        return self._together(self._processes, command)

    def tell_one(self, command: str) -> None:
        """Tell the first of them."""
        self._together(self._processes[:1], command)

    def seen(self, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until what they have seen is so, and return it."""
        found: dict[str, Any] = {}

        def holds() -> bool:
            # Seldom: each answer takes time from what is measured.
            time.sleep(0.2)
            found.update(self.tell("status"))
            return condition(found)

        try:
            until(holds, what, _WAIT_S)
        except AssertionError:
            print(found, file=sys.stderr)
            raise
        return found

    def _together(self, processes: Sequence[subprocess.Popen[str]], command: str) -> dict[str, Any]:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(command + "\n")
            process.stdin.flush()
        found: dict[str, Any] = {"frames": {}, "failures": {}}
        for process in processes:
            assert process.stdout is not None
            for name, value in json.loads(process.stdout.readline()).items():
                if isinstance(value, dict):
                    for kind, count in value.items():
                        found[name][kind] = found[name].get(kind, 0) + count
                elif name.startswith("last_"):
                    found[name] = max(found.get(name, 0.0), value)
                else:
                    found[name] = found.get(name, 0) + value
        return found


@contextmanager
def crowds(
    broker: Broker, mesh_id: str, members: Sequence[Kept], optional: Sequence[str]
) -> Iterator[Crowds]:
    """Start the processes. None connects before `go`."""
    with closing(sqlite3.connect(broker.data / "broker.db")) as raw:
        [number, token] = raw.execute("SELECT version, token FROM directory").fetchone()
    calls = [
        {"id": 0, "method": "peers", "params": {"since": f"{number}-{token}", "follow": True}},
        {"id": 1, "method": "topic_list", "params": {"counts": False}},
        {"id": 3, "method": "topic_list", "params": {"counts": False}},
        {"id": 2, "method": "send_status", "params": {"client_message_ids": []}},
    ]
    with ExitStack() as stack:
        processes = []
        for number in range(_PROCESSES):
            spec = {
                "host": "127.0.0.1",
                "port": broker.port,
                "mesh_id": mesh_id,
                "optional": list(optional),
                "calls": calls,
                "everybody": [kept.member_id for kept in members],
                "members": [
                    {"name": kept.name, "member_id": kept.member_id, "identity": kept.identity.to_json()}
                    for kept in members[number::_PROCESSES]
                ],
            }
            path = broker.data.parent / f"crowd-{number}.json"
            path.write_text(json.dumps(spec))
            process = subprocess.Popen(
                [sys.executable, str(HERE / "crowd.py"), str(path)],
                env={"PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield Crowds(processes)


def resident_mb(pid: int, which: str = "VmRSS") -> float:
    """The memory that a process holds, or with VmHWM held at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.partition(f"{which}:")[2].split()[0]) * 1.024 / 1000


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@dataclass
class Grown:
    """Measurements. `back_cpu_s` is the broker's processor time from its start until all are back."""

    back_s: float
    back_cpu_s: float
    most_mb: float
    post_s: float
    post_cpu_s: float
    presence_events: int
    presence_mb: float


@contextmanager
def grown_mesh(members: int = MEMBERS, connected: int = CONNECTED) -> Iterator[tuple[Mesh, str, list[Kept]]]:
    """A broker with that directory, not started."""
    with mesh(start=False) as made:
        made.broker.command = _CLAUDEMESH
        made.add("owner")
        made.broker.stop()
        mesh_id, kept = fill_mesh(made.broker.data / "broker.db", members, connected)
        yield made, mesh_id, kept


def measure(members: int = MEMBERS, connected: int = CONNECTED) -> Grown:
    """Connect all, kill the broker and start it again, post to all."""
    with grown_mesh(members, connected) as (made, mesh_id, kept):
        broker = made.broker
        broker.start()
        broker.ready()
        with crowds(broker, mesh_id, kept, ["presence"]) as crowd:
            crowd.tell("go")
            crowd.seen(lambda now: now["complete"] == connected, "all are connected and know each other")
            return _measure(broker, crowd, connected)


def _measure(broker: Broker, crowd: Crowds, connected: int) -> Grown:
    crowd.tell("reset")
    broker.kill()
    broker.start()
    started = time.monotonic()
    found = crowd.seen(lambda now: now["complete"] == connected, "all are back and know each other")
    back_s, back_cpu_s = found["last_complete"] - started, cpu_s(broker.pid)
    frames = found["frames"]
    if found["failures"]:
        print(found["failures"], file=sys.stderr)
    crowd.tell_one("key")
    crowd.seen(lambda now: now["keyed"] == 1, "the topic has an epoch")
    crowd.tell("reset")
    posted, before_s = time.monotonic(), cpu_s(broker.pid)
    crowd.tell_one("post")
    after = crowd.seen(lambda now: now["posts"] == connected - 1, "the post has reached all")
    return Grown(
        back_s=back_s,
        back_cpu_s=back_cpu_s,
        most_mb=resident_mb(broker.pid, "VmHWM"),
        post_s=after["last_post"] - posted,
        post_cpu_s=cpu_s(broker.pid) - before_s,
        presence_events=frames.get("presence", 0),
        presence_mb=found["bytes"] / 1e6,
    )


class _Rounds:
    """One measurement for the rows of a round."""

    def __init__(self) -> None:
        self._found: Grown | None = None
        self._used: set[str] = set()

    def of(self, row: str) -> Grown:
        """Return the measurement of the present round; a row that asks again begins the next one."""
        if self._found is None or row in self._used:
            self._found, self._used = measure(), set()
        self._used.add(row)
        return self._found


_ROUNDS = _Rounds()


def back(_: Lab) -> tuple[float, float]:
    """Seconds until 2,000 members are back after the broker was killed, and know each other; aim: 30 s."""
    return _ROUNDS.of("back").back_s, 30.0


def memory(_: Lab) -> tuple[float, float]:
    """The most that the broker held meanwhile; the bound is 250 MB."""
    return _ROUNDS.of("memory").most_mb, 250.0


def post(_: Lab) -> tuple[float, float]:
    """Seconds until a post to a topic has reached all of them; aim: 1 s."""
    return _ROUNDS.of("post").post_s, 1.0


if __name__ == "__main__":
    print(measure(int(sys.argv[1]), int(sys.argv[2])))
