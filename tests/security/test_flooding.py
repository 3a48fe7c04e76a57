"""Nobody freezes a broker: members and strangers are answered while it is flooded, in bounded memory."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.flood import FLOODS, flooding
from tests.support.processes import Broker, Mesh, mesh, until

SENDS = 15
GROWTH = 96 << 20


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
    with closing(http.client.HTTPConnection("127.0.0.1", broker.port, timeout=10)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def limits(broker: Broker) -> dict[str, float]:
    """How often each limit of the guard was reached."""
    with closing(http.client.HTTPConnection("127.0.0.1", broker.port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("cm_broker_guard_limits_total{"):
            found[line.split('"')[1]] = float(line.split()[-1])
    return found


def serves(made: Mesh, what: str) -> None:
    """Members send with the broker's word, the broker answers strangers, and the times are printed."""
    alice, sends, answers = made.daemons["alice"], [], []
    for number in range(SENDS):
        began = time.perf_counter()
        status, body = alice.request(
            "POST", "/v1/send?wait_ms=20000", {"to": "bob", "message": f"{what} {number}"}
        )
        sends.append(time.perf_counter() - began)
        assert (status, body["status"]) == (200, "done"), body
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
    before = resident(broker.pid)
    with flooding(kind, broker.port, count, "127.0.0.2") as attack:
        serves(pair, f"{kind} x {count}")
        grown = resident(broker.pid) - before
    print(attack.result, f"memory +{grown >> 20} MiB", limits(broker))
    assert grown < GROWTH
