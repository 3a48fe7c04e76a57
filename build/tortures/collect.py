"""The collection of what a run left behind: inboxes, outboxes, logs, health and gauges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Final

from tortures import client
from tortures.cluster import Cluster, Node
from tortures.history import Arrival, Gauge, History, OutboxRow

_PAGE: Final = 500
_LINES_A_LOG: Final = 5
# The growth that is accepted after the faults: descriptors, and memory, which caches grow into.
_MORE_DESCRIPTORS: Final = 16
_MORE_BYTES: Final = 64 << 20
_GROWTH: Final = 1.5
_CALM_S: Final = 30
_TRACEBACK: Final = "Traceback (most recent call last)"


async def collect(cluster: Cluster, history: History) -> None:
    """Read every inbox, outbox, log and health into the history, and run the broker's own check."""
    for name in cluster.shape.daemons:
        async for item in _pages(cluster, name, "/v1/inbox"):
            history.arrivals.append(_arrival(name, item))
        async for item in _pages(cluster, name, "/v1/outbox"):
            history.outbox.append(_row(name, item))
        await _judge_health(cluster, name, history)
    for gate in cluster.gates.values():
        history.detained |= gate.detained
    for node in cluster.nodes.values():
        history.tracebacks += [(node.name, line) for line in _tracebacks(node)]
    history.ended = list(cluster.ended)
    done = await asyncio.to_thread(cluster.cli, "broker", "check")
    if done.returncode != 0:
        history.broker_findings.append(f"exit {done.returncode}: {(done.stdout + done.stderr).strip()}")


def measure(cluster: Cluster) -> dict[tuple[str, str], int]:
    """Return descriptors and resident memory of every process."""
    found = {}
    for node in cluster.nodes.values():
        found[node.name, "descriptors"] = node.descriptors
        found[node.name, "memory"] = node.resident_bytes
    return found


async def judge_gauges(cluster: Cluster, history: History, before: dict[tuple[str, str], int]) -> None:
    """Compare with the measure before the faults. Connections that are closing get time to close."""
    gauges: list[Gauge] = []
    for _ in range(_CALM_S):
        gauges = [
            Gauge(process, name, before[process, name], after, _limit(name, before[process, name]))
            for (process, name), after in measure(cluster).items()
        ]
        if all(gauge.after <= gauge.limit for gauge in gauges):
            break
        await asyncio.sleep(1)
    history.gauges = gauges


def _limit(name: str, before: int) -> int:
    return before + _MORE_DESCRIPTORS if name == "descriptors" else int(before * _GROWTH) + _MORE_BYTES


async def _pages(cluster: Cluster, name: str, path: str) -> AsyncGenerator[dict[str, Any]]:
    after = ""
    while True:
        query = f"{path}?limit={_PAGE}{after}"
        status, page = await client.request(cluster.daemon(name).sock, "GET", query, timeout_s=60)
        if status != 200:
            raise RuntimeError(f"{name} answered {query} with {status} {page}")
        for item in page["items"]:
            yield item
        if page["next"] is None:
            return
        after = f"&after={page['next']}"


def _arrival(name: str, item: dict[str, Any]) -> Arrival:
    return Arrival(
        member=name,
        seq=item["seq"],
        id=item["client_message_id"],
        sender=item["sender_name"],
        text=item["body"] or "",
        broker_id=item["broker_message_id"],
        history_id=item["history_id"],
        acked=item["acked_at"] is not None,
    )


def _row(name: str, item: dict[str, Any]) -> OutboxRow:
    return OutboxRow(
        name, item["client_message_id"], item["status"], item["last_error"], item["broker_message_id"]
    )


async def _judge_health(cluster: Cluster, name: str, history: History) -> None:
    health = await cluster.health(name)
    if health is None:
        history.unhealthy.append((name, "does not answer"))
        return
    history.unhealthy += [(name, f"degraded: {entry}") for entry in health["degraded"]]
    if not health["connected"]:
        history.unhealthy.append((name, "not connected"))
    history.unhealthy += [
        (name, f"{key}: {health[key]}") for key in ("queue_depth", "inflight") if health[key]
    ]


def _tracebacks(node: Node) -> list[str]:
    found: dict[str, int] = {}
    for line in node.process.log.read_text(errors="replace").splitlines():
        if _TRACEBACK in line:
            found[_summary(line)] = found.get(_summary(line), 0) + 1
    return [f"{count} times: {text}" for text, count in found.items()][:_LINES_A_LOG]


def _summary(line: str) -> str:
    """Return the event of a log line and the last line of its traceback."""
    try:
        entry = json.loads(line)
        return f"{entry['event']}: {entry['traceback'].strip().splitlines()[-1]}"
    except (ValueError, KeyError, TypeError):
        return line.strip()
