"""The nemeses: one coroutine for each kind of fault, which returns its evidence, a count of what happened."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from tortures import client
from tortures.cluster import Cluster, Node
from tortures.gate import Gate, read_frame
from tortures.plan import BROKER, BROKERS, KINDS, Fault

# The longest wait for a fault that strikes only when the workload comes by.
_PATIENCE_S: Final = 20.0
# The same for a fault of a link. A daemon gives a half-open link up after 40 s, and then has to dial again.
LINK_PATIENCE_S: Final = 90.0
_POLL_S: Final = 0.05
_PROBE_S: Final = 0.5
_LOST_RESULTS: Final = 2
_FILLER: Final = "torture.filler"
_CHALLENGE: Final = (
    "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dG9ydHVyZXRvcnR1cmVydA==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: claudemesh.v1\r\n\r\n"
)
# A text frame that is no hello, with a mask of zeros.
_NO_HELLO: Final = b"\x81\x82\0\0\0\0{}"


async def strike(cluster: Cluster, fault: Fault) -> int:
    """Carry a fault out, heal it, and return its evidence; 0 when nothing shows that it happened."""
    return await _NEMESES[fault.kind](cluster, fault)


def touched(cluster: Cluster, fault: Fault) -> frozenset[str]:
    """Return the daemons whose process or link a fault can touch: all of them unless it is a daemon's own."""
    name = fault.target.removeprefix("link:")
    return frozenset((name,)) if name in cluster.shape.daemons else frozenset(cluster.shape.daemons)


async def _kill(cluster: Cluster, fault: Fault) -> int:
    node = cluster.nodes[fault.target]
    async with node.lock:
        before = node.pid
        node.kill()
        await asyncio.sleep(fault.length_s)
        node.start()
        return int(node.pid != before)


async def _pause(cluster: Cluster, fault: Fault) -> int:
    node = cluster.nodes[fault.target]
    async with node.lock:
        node.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.length_s)
            return int(node.is_stopped)
        finally:
            node.signal(signal.SIGCONT)


async def _partition(cluster: Cluster, fault: Fault) -> int:
    if fault.target in cluster.shape.brokers:
        return await _partition_broker(cluster, fault)
    gate = _gate(cluster, fault)
    before = _struck(gate, "cut", "refused")
    with _away(gate):
        await asyncio.sleep(fault.length_s)
    return _struck(gate, "cut", "refused") - before


@contextmanager
def _away(gate: Gate) -> Generator[None]:
    """Keep a daemon away from every broker."""
    gate.refusals += 1
    gate.cut()
    try:
        yield
    finally:
        gate.refusals -= 1


async def _partition_broker(cluster: Cluster, fault: Fault) -> int:
    port = cluster.broker(fault.target).port
    await wait_until(lambda: any(gate.reaches(port) for gate in cluster.gates.values()), LINK_PATIENCE_S)
    before = sum(gate.struck["cut"] for gate in cluster.gates.values())
    cluster.sever(port)
    cut = sum(gate.struck["cut"] for gate in cluster.gates.values()) - before
    try:
        await asyncio.sleep(fault.length_s)
    finally:
        cluster.mend(port)
    return cut


async def _half_open(cluster: Cluster, fault: Fault) -> int:
    gate = _gate(cluster, fault)
    gate.swallow()
    try:
        return await _shown(gate, fault, "swallowed")
    finally:
        gate.is_swallowing = False


async def _drop(cluster: Cluster, fault: Fault) -> int:
    """Drop every frame of a type, then cut: a connection that is lost with what was under way on it."""
    gate = _gate(cluster, fault)
    gate.dropping[fault.detail] = 1 << 30
    try:
        return await _shown(gate, fault, "dropped")
    finally:
        gate.dropping.pop(fault.detail, None)
        gate.cut()


async def _lost_result(cluster: Cluster, fault: Fault) -> int:
    gate = _gate(cluster, fault)
    gate.dropping["send_result"] = _LOST_RESULTS
    try:
        return await _shown(gate, fault, "dropped")
    finally:
        gate.dropping.pop("send_result", None)


async def _delay(cluster: Cluster, fault: Fault) -> int:
    gate = _gate(cluster, fault)
    gate.delay_s = fault.length_s / 4
    try:
        return await _shown(gate, fault, "delayed")
    finally:
        gate.delay_s = 0.0


async def _shown(gate: Gate, fault: Fault, name: str) -> int:
    """Let a fault of a link last until it has struck, and return how often it did."""
    before = gate.struck[name]
    await asyncio.sleep(fault.length_s)
    await wait_until(lambda: gate.struck[name] > before, LINK_PATIENCE_S)
    return gate.struck[name] - before


async def _disk_full(cluster: Cluster, fault: Fault) -> int:
    node = cluster.nodes[fault.target]
    async with node.lock:
        if not cluster.is_mounted(node):
            return await _fail_writes(node, fault, "ENOSPC", f"{node.storage}/")
        filler = node.storage / _FILLER
        try:
            await asyncio.to_thread(_fill, filler)
            await asyncio.sleep(fault.length_s)
            found = os.statvfs(node.storage)
            return int(found.f_bavail == 0)
        finally:
            filler.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    """Take all the space that is left; sizes are halved until not even a page fits."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        at, piece = 0, 1 << 30
        while piece >= 4096:
            try:
                os.posix_fallocate(descriptor, at, piece)
                at += piece
            except OSError:
                piece //= 2
    finally:
        os.close(descriptor)


async def _eio(cluster: Cluster, fault: Fault) -> int:
    node = cluster.nodes[fault.target]
    async with node.lock:
        match = "broker.db" if node.role == BROKER else ("outbox.db", "inbox.db")[fault.number % 2]
        return await _fail_writes(node, fault, "EIO", match)


async def _fail_writes(node: Node, fault: Fault, code: str, match: str) -> int:
    before = node.fault.struck
    node.fault.on(code, match)
    try:
        await asyncio.sleep(fault.length_s)
        await wait_until(lambda: node.fault.struck > before)
    finally:
        node.fault.off()
    return node.fault.struck - before


async def _emfile(cluster: Cluster, fault: Fault) -> int:
    node = cluster.nodes[fault.target]
    async with node.lock:
        # Without descriptors not even Python starts, which says nothing about the product.
        await wait_until(lambda: node.has_served)
        before = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
        pid, evidence = node.pid, 0
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (node.descriptors, before[1]))
        try:
            deadline = time.monotonic() + fault.length_s
            while time.monotonic() < deadline:
                evidence += not await _answers(cluster, node)
                await asyncio.sleep(_PROBE_S)
            return evidence
        finally:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def _answers(cluster: Cluster, node: Node) -> bool:
    """Whether a new connection is served."""
    if node.role == BROKER:
        return await _challenged(cluster.broker(node.name).port)
    with suppress(client.Unanswered):
        await client.request(cluster.daemon(node.name).sock, "GET", "/v1/version", timeout_s=_PROBE_S)
        return True
    return False


async def _clock(cluster: Cluster, fault: Fault) -> int:
    node, jump_s = cluster.nodes[fault.target], int(fault.detail)
    async with node.lock:
        node.clock.set(jump_s)
        try:
            await asyncio.sleep(fault.length_s)
            for _ in range(round(_PATIENCE_S / _PROBE_S)):
                if await _tells(cluster, node, jump_s):
                    return 1
                await asyncio.sleep(_PROBE_S)
            return 0
        finally:
            node.clock.set(0)


async def _tells(cluster: Cluster, node: Node, jump_s: int) -> bool:
    """Whether a process tells a wall time that is so far from the real one."""
    told_s = await _told_time(cluster, node)
    return told_s is not None and abs(told_s - time.time() - jump_s) < abs(jump_s) / 2


async def _told_time(cluster: Cluster, node: Node) -> float | None:
    if node.role == BROKER:
        return await _logged_time(cluster, node)
    with suppress(client.Unanswered):
        _, answer = await client.request(cluster.daemon(node.name).sock, "POST", "/v1/heartbeat")
        return datetime.fromisoformat(answer["now"]).timestamp()
    return None


async def _logged_time(cluster: Cluster, node: Node) -> float | None:
    """Let a broker refuse a handshake, and return the time in its log: in frames it is the database's."""
    start = node.process.log.stat().st_size
    if not await _challenged(cluster.broker(node.name).port, _NO_HELLO):
        return None
    with node.process.log.open("rb") as log:
        log.seek(start)
        lines = [line for line in log if b'"handshake_refused"' in line]
    return datetime.fromisoformat(json.loads(lines[-1])["ts"]).timestamp() if lines else None


async def _challenged(port: int, word: bytes = b"") -> bool:
    """Whether a broker challenges a new connection; it is told one word, and its answer awaited."""
    with suppress(OSError, TimeoutError, EOFError, ValueError, KeyError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_CHALLENGE.format(port=port).encode())
                await reader.readuntil(b"\r\n\r\n")
                _, _, payload = await read_frame(reader)
                if word:
                    writer.write(word)
                    await read_frame(reader)
                return bool(json.loads(payload)["type"] == "challenge")
            finally:
                writer.transport.abort()
    return False


async def _restore(cluster: Cluster, fault: Fault) -> int:
    """Copy the data, let messages be accepted that one daemon does not receive, and put the copy back."""
    names = cluster.shape.daemons
    with _away(cluster.gates[names[fault.number % len(names)]]):
        if cluster.server is not None:
            return await _restore_server(cluster, fault)
        return await _restore_broker(cluster, fault)


async def _restore_broker(cluster: Cluster, fault: Fault) -> int:
    node = cluster.nodes[cluster.shape.brokers[0]]
    copy = cluster.root / f"copy-{fault.number}"
    async with node.lock:
        await node.terminate()
        _copy(node.storage, copy)
        node.start()
        await cluster.ready(node.name)
        await asyncio.sleep(fault.length_s)
        node.kill()
        for entry in node.storage.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        changed = _copy(copy, node.storage)
        shutil.rmtree(copy)
        node.start()
        return changed


async def _restore_server(cluster: Cluster, fault: Fault) -> int:
    server = cluster.server
    assert server is not None
    copy = cluster.root / f"copy-{fault.number}"
    async with cluster.server_lock:
        await asyncio.to_thread(server.stop)
        _copy(server.data, copy)
        server.start()
        await asyncio.sleep(fault.length_s)
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        shutil.rmtree(server.data)
        changed = _copy(copy, server.data)
        shutil.rmtree(copy)
        server.start()
        return changed


def _copy(source: Path, target: Path) -> int:
    """Copy a folder's contents with owners and modes; returns how many entries there are."""
    made = not target.exists()
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True, capture_output=True)
    if made:
        shutil.copystat(source, target)
    return sum(1 for _ in target.rglob("*"))


async def _postgres(cluster: Cluster, fault: Fault) -> int:
    server = cluster.server
    assert server is not None
    async with cluster.server_lock:
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        await asyncio.sleep(fault.length_s)
        server.start()
        return 1


async def _rolling(cluster: Cluster, fault: Fault) -> int:
    names = cluster.shape.brokers if fault.target == BROKERS else (fault.target,)
    evidence = 0
    for name in names:
        node = cluster.nodes[name]
        async with node.lock:
            evidence += await node.terminate() == 0
            await asyncio.sleep(fault.length_s)
            node.start()
        # Without the lock: a broker that finds no database at its start ends, and is started again.
        await cluster.ready(name)
    return evidence


def _gate(cluster: Cluster, fault: Fault) -> Gate:
    return cluster.gates[fault.target.removeprefix("link:")]


def _struck(gate: Gate, *names: str) -> int:
    return sum(gate.struck[name] for name in names)


async def wait_until(condition: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
    """Wait for a condition of another process or of the traffic, up to `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)


_NEMESES: Final[dict[str, Callable[[Cluster, Fault], Awaitable[int]]]] = {
    "kill": _kill,
    "pause": _pause,
    "partition": _partition,
    "half_open": _half_open,
    "drop": _drop,
    "delay": _delay,
    "lost_result": _lost_result,
    "disk_full": _disk_full,
    "eio": _eio,
    "emfile": _emfile,
    "clock": _clock,
    "restore": _restore,
    "postgres": _postgres,
    "rolling": _rolling,
}
assert _NEMESES.keys() == KINDS.keys()
