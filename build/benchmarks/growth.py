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

from benchmarks.lab import HERE, UNLIMITED
from claudemesh.protocol import Identity, uuid_from_ulid
from tests.support.processes import REPOSITORY, Broker, Mesh, mesh, until
from tests.support.wspeer import make_identity, new_id

MEMBERS = 20_000
CONNECTED = 2_000
# Of those that are not connected, so many are still members; the others have left.
AWAY = 2_000
_PROCESSES = 2
_WAIT_S = 150.0
_CLAUDEMESH = [sys.executable, "-m", "claudemesh"]

_MEMBER = """
INSERT INTO member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey, x25519_signature, key_id,
                    ephemeral, created_at)
VALUES (?, ?, ?, 'member', ?, ?, ?, ?, ?, ?, ?)
"""
_KEY = """
INSERT INTO member_key (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at)
VALUES (?, ?, ?, ?, ?, 'current', ?)
"""
_SUBSCRIPTION = "INSERT INTO topic_subscription (mesh_id, topic, member_id, since) VALUES (?, 'all', ?, ?)"


@dataclass(frozen=True)
class Kept:
    """A member that was written into the broker's database."""

    name: str
    member_id: str
    identity: Identity


def fill(database: Path, members: int, connected: int, away: int) -> tuple[str, list[Kept]]:
    """Write members into a stopped broker's database; returns the mesh's id and those that will connect."""
    now_ms = time.time_ns() // 1_000_000
    made = []
    with closing(sqlite3.connect(database)) as raw, raw:
        raw.execute(UNLIMITED.replace("mesh.mesh", "mesh"))
        mesh_id = raw.execute("SELECT id FROM mesh").fetchone()[0]
        for number in range(members):
            kept = Kept(f"m{number}", uuid_from_ulid(new_id()), make_identity())
            identity, is_member = kept.identity, number < connected + away
            keys = (identity.ed25519_pubkey, identity.x25519_pubkey)
            status = "active" if is_member else "left"
            values = (kept.member_id, mesh_id, kept.name, status, *keys, identity.x25519_signature)
            raw.execute(_MEMBER, (*values, identity.key_id, not is_member, now_ms))
            raw.execute(_KEY, (identity.key_id, mesh_id, kept.member_id, *keys, now_ms))
            raw.execute(_SUBSCRIPTION, (mesh_id, kept.member_id, now_ms))
            if number < connected:
                made.append(kept)
    return mesh_id, made


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
    """Start the processes; nobody connects before `go`."""
    calls = [
        {"id": 1, "method": "topic_list", "params": {}},
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


@dataclass
class Grown:
    """What was measured."""

    connect_s: float
    connected_mb: float
    back_s: float
    most_mb: float
    post_s: float
    presence_frames: int
    received_mb: float


@contextmanager
def grown_mesh(members: int = MEMBERS, connected: int = CONNECTED) -> Iterator[tuple[Mesh, str, list[Kept]]]:
    """A broker with that directory, not started."""
    with mesh(start=False) as made:
        made.broker.command = _CLAUDEMESH
        made.add("owner")
        made.broker.stop()
        mesh_id, kept = fill(made.broker.data / "broker.db", members, connected, AWAY)
        yield made, mesh_id, kept


def measure(
    members: int = MEMBERS, connected: int = CONNECTED, optional: Sequence[str] = ("presence",)
) -> Grown:
    """Connect all, restart the broker, post to all."""
    with grown_mesh(members, connected) as (made, mesh_id, kept):
        broker = made.broker
        broker.start()
        broker.ready()
        with crowds(broker, mesh_id, kept, optional) as crowd:
            return _measure(broker, crowd, connected)


def _measure(broker: Broker, crowd: Crowds, connected: int) -> Grown:
    started = time.monotonic()
    crowd.tell("go")
    found = crowd.seen(lambda now: now["complete"] == connected, "all are connected and know each other")
    connect_s = found["last_complete"] - started
    connected_mb = resident_mb(broker.pid)
    crowd.tell("reset")
    broker.kill()
    broker.start()
    started = time.monotonic()
    broker.ready()
    found = crowd.seen(lambda now: now["complete"] == connected, "all are back and know each other")
    back_s = found["last_complete"] - started
    frames = found["frames"]
    print(frames, found["failures"], found["bytes"], found["last_open"] - started, file=sys.stderr)
    time.sleep(2)
    crowd.tell("reset")
    posted = time.monotonic()
    crowd.tell_one("post")
    found = crowd.seen(lambda now: now["posts"] == connected - 1, "the post has reached all")
    return Grown(
        connect_s=connect_s,
        connected_mb=connected_mb,
        back_s=back_s,
        most_mb=resident_mb(broker.pid, "VmHWM"),
        post_s=found["last_post"] - posted,
        presence_frames=sum(frames.get(kind, 0) for kind in ("presence", "peer_join", "peer_leave")),
        received_mb=found["bytes"] / 1e6,
    )


if __name__ == "__main__":
    print(measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
