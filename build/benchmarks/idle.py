"""Cost of idle processes: memory, and processor time at rest."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.size import QUICK, size
from tests.support.processes import Broker
from tests.support.wspeer import Peer, http_request, make_identity, new_id, owner_body

_SECONDS = 0.1 if QUICK else 8.0
_CONNECTIONS = size(1000, 5)


def memory(lab: Lab) -> tuple[float, float]:
    """A connected daemon's resident memory after the rows before; the bound is 40 MB."""
    return memory_alone(lab), 40.0


def memory_alone(lab: Lab) -> float:
    """A connected daemon's resident memory after the rows before; MB."""
    return resident_kb(lab.alice.pid) / 1000


def cpu(lab: Lab) -> tuple[float, float]:
    """A connected daemon's processor time while nothing happens; the bound is 0.1 % of a core."""
    return cpu_alone(lab), 0.1


def cpu_alone(lab: Lab) -> float:
    """A connected daemon's processor time while nothing happens; percent of a core."""
    before, started = cpu_s(lab.alice.pid), time.perf_counter()
    time.sleep(_SECONDS)
    return (cpu_s(lab.alice.pid) - before) / (time.perf_counter() - started) * 100


def connection(lab: Lab) -> tuple[float, float]:
    """A broker's memory for one of 1,000 idle connections, each in a mesh of its own; the bound is 25 KB."""
    return connection_alone(lab), 25.0


def connection_alone(lab: Lab) -> float:
    """A broker's memory for one of 1,000 idle connections; KB."""
    # A broker of its own: one that was larger before would hide what the connections take.
    with lab.mesh() as made:
        return asyncio.run(_connections(made.broker))


async def _connections(broker: Broker) -> float:
    peers = [await _mesh_of_one(broker) for _ in range(_CONNECTIONS)]
    before = resident_kb(broker.pid)
    async with AsyncExitStack() as stack:
        for peer in peers:
            await (await stack.enter_async_context(peer.connect())).settle()
        return (resident_kb(broker.pid) - before) / _CONNECTIONS


async def _mesh_of_one(broker: Broker) -> Peer:
    identity, slug = make_identity(), f"m-{new_id().lower()}"
    token = (broker.data / "admin_token").read_text().strip()
    body = {"slug": slug, "owner": owner_body("owner", identity)}
    status, made = await http_request(broker.url, "POST", "/v1/admin/meshes", body, token=token)
    assert status == 201, made
    return Peer("owner", identity, made["mesh_id"], slug, made["member_id"], broker.url)


def resident_kb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.partition("VmRSS:")[2].split()[0]) * 1.024


def cpu_s(pid: int) -> float:
    """Return the processor time of a process in seconds."""
    # Nanoseconds of each thread: the clock ticks of `stat` are as long as an idle daemon works in 3 s.
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
