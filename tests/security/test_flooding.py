"""A flooded broker still answers members and strangers, in bounded memory."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import statistics
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.flood import FLOODS, HOLDS, UPGRADE, flooding
from tests.support.processes import Broker, Mesh, mesh, until
from tests.support.waiting import WAIT_S

SENDS = 15
GROWTH = 96 << 20
# The limit at which each flood ends, or is slowed down.
REACHED = {
    "chunks": "chunks",
    "continuations": "control_frames",
    "fragments": "pace",
    "frames": "pace",
    "large": "bytes",
    "lines": "head_lines",
    "metrics": "requests",
    "pings": "control_frames",
    "pongs": "control_frames",
    "requests": "requests",
    "trailers": "chunks",
}


# A body that is too large is answered 413 and its connection ends, before a limit of the guard is reached.
REFUSED = {"body"}


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    with mesh("alice", "bob") as made:
        yield made


def resident(pid: int) -> int:
    """The memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def open_sockets(pid: int) -> int:
    return sum(1 for link in Path(f"/proc/{pid}/fd").iterdir() if "socket" in str(link.readlink()))


def health(broker: Broker) -> int:
    """The status of GET /healthz."""
    with closing(http.client.HTTPConnection("127.0.0.1", broker.port, timeout=WAIT_S)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def limits(broker: Broker) -> dict[str, float]:
    """Return how many times each limit of the guard was reached, of those that were."""
    with closing(http.client.HTTPConnection("127.0.0.1", broker.port, timeout=WAIT_S)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("cm_broker_guard_limits_total{"):
            found[line.split('"')[1]] = float(line.split()[-1])
    return {limit: times for limit, times in found.items() if times}


def serves(made: Mesh, what: str) -> None:
    """Members send with the broker's word, the broker answers strangers, and the times are printed."""
    alice, sends, answers = made.daemons["alice"], [], []
    for number in range(SENDS):
        began = time.perf_counter()
        alice.get_across({"to": "bob", "message": f"{what} {number}"})
        sends.append(time.perf_counter() - began)
        began = time.perf_counter()
        until(lambda: health(made.broker) == 200, "the broker answers a stranger")
        answers.append(time.perf_counter() - began)
    print(
        f"{what}: send {statistics.median(sends) * 1000:.0f} ms (max {max(sends) * 1000:.0f}), "
        f"healthz {statistics.median(answers) * 1000:.0f} ms (max {max(answers) * 1000:.0f})"
    )


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("kind", sorted(FLOODS))
def test_members_are_served_while_strangers_flood(pair: Mesh, kind: str, count: int) -> None:
    broker = pair.broker
    before, reached = resident(broker.pid), limits(broker)
    with flooding(kind, broker.port, count, "127.0.0.2") as attack:
        serves(pair, f"{kind} x {count}")
        grown = resident(broker.pid) - before
        if kind in REACHED:
            limit = REACHED[kind]
            until(
                lambda: limits(broker).get(limit, 0) > reached.get(limit, 0), f"the limit {limit} is reached"
            )
    print(attack.result, f"memory +{grown >> 20} MiB", limits(broker))
    assert grown < GROWTH
    if kind in REFUSED:
        assert attack.result["cut"] > 0


def lines(broker: Broker, event: str) -> list[str]:
    """The broker's log lines of an event."""
    return [line for line in broker.log.read_text().splitlines() if f'"{event}"' in line]


@pytest.mark.parametrize("kind", sorted(HOLDS))
def test_a_thousand_strangers_lock_no_member_out(kind: str) -> None:
    """With 1024 descriptors and a flood of held connections members stay, and new ones come in."""
    few = ["/bin/sh", "-c", 'ulimit -n 1024; exec "$@"', "limited"]
    with mesh("alice", "bob", broker_prefix=few) as made:
        broker, bob = made.broker, made.daemons["bob"]
        before = resident(broker.pid), open_sockets(broker.pid)
        assert len(lines(broker, "few_descriptors")) == 1
        with (
            flooding(kind, broker.port, 400, "127.0.0.2") as first,
            flooding(kind, broker.port, 600, "127.0.0.3") as second,
        ):
            serves(made, f"{kind}, a thousand")
            assert made.cli(bob, "daemon", "down") is not None
            bob.ended()
            bob.start()
            bob.ready()
            serves(made, f"{kind}, a thousand, bob came back")
            grown = resident(broker.pid) - before[0]
        # Nothing of the flood is left that could reach a limit for the first time.
        until(lambda: open_sockets(broker.pid) <= before[1] + 1, "nothing is left behind")
        reached = limits(broker)
        print(first.result, second.result, f"memory +{grown >> 20} MiB", reached)
        assert reached["strangers_per_address"] > 0
        assert grown < GROWTH
        # An episode of a limit is one line, however often the limit was reached.
        assert len(lines(broker, "limit_reached")) == len(reached)


def test_one_address_leaves_room_for_the_others(pair: Mesh) -> None:
    """600 half-open handshakes from one address: another one is answered, and gets its WebSocket."""
    with flooding("half-open", pair.broker.port, 600, "127.0.0.2") as attack:
        serves(pair, "600 half-open")
        with socket.create_connection(("127.0.0.1", pair.broker.port), timeout=WAIT_S) as link:
            link.sendall(UPGRADE)
            assert link.recv(65_536).startswith(b"HTTP/1.1 101")
    assert attack.result["held"] < 600 or attack.result["cut"] > 0


def test_without_descriptors_connections_wait_until_there_are_some() -> None:
    """The shortage is told once, in the log and in /readyz, and is over by itself."""
    with mesh("alice") as made:
        broker = made.broker
        used = len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))
        hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)[1]
        with closing(http.client.HTTPConnection("127.0.0.1", broker.port, timeout=WAIT_S)) as inside:
            inside.request("GET", "/healthz")
            inside.getresponse().read()
            resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (used + 1, hard))
            waiting = socket.create_connection(("127.0.0.1", broker.port), timeout=WAIT_S)
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: lines(broker, "limit_reached"), "the shortage is logged")
            inside.request("GET", "/readyz")
            told = json.loads(inside.getresponse().read())
            assert [item["code"] for item in told["degraded"]] == ["too_many_open_files"]
            resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (hard, hard))
            assert waiting.recv(65_536).startswith(b"HTTP/1.1 200")
            waiting.close()
            inside.request("GET", "/readyz")
            assert json.loads(inside.getresponse().read())["degraded"] == []
        assert len(lines(broker, "limit_reached")) == 1
