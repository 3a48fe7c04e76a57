"""One run: start, warm up, torment, heal, drain, collect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tortures.checks import recipients
from tortures.cluster import Cluster, Stuck
from tortures.collect import collect, judge_gauges, measure
from tortures.history import QUEUE, History, Upset
from tortures.nemeses import LINK_PATIENCE_S, strike, touched, wait_until
from tortures.plan import KINDS, MINUTE_S, Fault
from tortures.workload import Workload

WARM_UP_S: Final = 5.0
# The run is over when nothing has moved for this time, which is longer than any documented wait of the
# product.
QUIET_S: Final = 180.0
_POLL_S: Final = 0.5

Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """Records and figures of a run."""

    history: History = field(default_factory=History)
    figures: dict[str, int] = field(default_factory=dict)


async def run(cluster: Cluster, faults: Sequence[Fault], seed: int, minutes: float, say: Say) -> Result:
    """Carry a schedule out on a cluster that is not started yet, and return what is to be judged."""
    result = Result()
    history = result.history
    history.drawn = {fault.kind for fault in faults}
    await cluster.start()
    workload = Workload(cluster, history, seed)
    try:
        await workload.prepare()
        workload.start()
        await asyncio.sleep(WARM_UP_S)
        before = measure(cluster)
        say(f"warm: {len(history.sends)} messages sent, {len(faults)} faults follow")
        ends = asyncio.create_task(asyncio.sleep(minutes * MINUTE_S))
        await _torment(cluster, faults, history, say)
        await ends
        await _heal(cluster)
        say("healed: draining")
        await workload.stop_sending()
        await _drain(cluster, workload, history, say)
        await workload.stop_reading()
    finally:
        workload.cancel()
    await collect(cluster, history)
    await judge_gauges(cluster, history, before)
    result.figures = _figures(history, workload)
    return result


async def _torment(cluster: Cluster, faults: Sequence[Fault], history: History, say: Say) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            group.create_task(_strike(cluster, fault, history, began, say))


async def _strike(cluster: Cluster, fault: Fault, history: History, began: float, say: Say) -> None:
    async with at_hand(cluster, fault):
        await _strike_now(cluster, fault, history, began, say)


async def _strike_now(cluster: Cluster, fault: Fault, history: History, began: float, say: Say) -> None:
    start_s = time.monotonic()
    try:
        evidence = await strike(cluster, fault)
        note = f"evidence {evidence}"
    except (ProcessLookupError, FileNotFoundError) as error:
        # The process ended by itself meanwhile; whether it may is for the checks to say.
        evidence, note = 0, f"the process has gone: {error}"
    except Stuck as error:
        evidence, note = 0, str(error)
    end_s = time.monotonic()
    kind = KINDS[fault.kind]
    members = touched(cluster, fault)
    history.upsets.append(
        Upset(fault.number, fault.kind, fault.target, members, kind.graceful, start_s, end_s, evidence)
    )
    at = f"{start_s - began:7.1f} s"
    detail = f" {fault.detail}" if fault.detail else ""
    say(f"{at}  {fault.kind}{detail} on {fault.target}, {end_s - start_s:.1f} s: {note}")


@asynccontextmanager
async def at_hand(cluster: Cluster, fault: Fault) -> AsyncGenerator[None]:
    """Hold a fault back until its target can feel it: a process that runs, a link that carries traffic.

    A process may be about to be started again. A link may still be half-open from an earlier fault, whose
    end the daemon notices only later. On one link one fault is in force at a time.
    """
    node = cluster.nodes.get(fault.target)
    if node is not None:
        await wait_until(lambda: node.process.running)
        yield
        return
    gate = cluster.gates.get(fault.target.removeprefix("link:"))
    if gate is None:
        yield
        return
    async with gate.lock:
        before = gate.passed
        await wait_until(lambda: gate.passed > before, LINK_PATIENCE_S)
        yield


async def _heal(cluster: Cluster) -> None:
    """Undo all faults that may still be in force, and wait until every process is ready."""
    for gate in cluster.gates.values():
        gate.heal()
    for node in cluster.nodes.values():
        node.fault.off()
        node.clock.set(0)


async def _drain(cluster: Cluster, workload: Workload, history: History, say: Say) -> None:
    """Wait until everything has arrived and every daemon is at rest, or nothing has moved for `QUIET_S`."""
    last: tuple[object, ...] = ()
    moved_s = time.monotonic()
    while True:
        state = await _state(cluster, workload)
        missing = _missing(history)
        if state != last:
            last, moved_s = state, time.monotonic()
        if not missing and _at_rest(state):
            return
        if time.monotonic() - moved_s > QUIET_S:
            say(f"nothing has moved for {QUIET_S:.0f} s: {missing} deliveries are missing")
            return
        await asyncio.sleep(_POLL_S)


async def _state(cluster: Cluster, workload: Workload) -> tuple[object, ...]:
    made: list[object] = []
    for name in cluster.shape.daemons:
        health = await cluster.health(name)
        keys = ("connected", "queue_depth", "inflight", "degraded")
        told = None if health is None else tuple(str(health[key]) for key in keys)
        position = workload.followed(name)
        made.append((told, position, await cluster.holds_more(name, position)))
    ready = [await cluster.is_ready(name) for name in cluster.shape.brokers]
    return (*made, tuple(ready))


def _at_rest(state: tuple[object, ...]) -> bool:
    *daemons, ready = state
    rest = ("True", "0", "0", "[]")
    daemons_rest = all(
        entry[0] == rest and entry[2] is False for entry in daemons if isinstance(entry, tuple)
    )
    return daemons_rest and False not in (ready if isinstance(ready, tuple) else ())


def _missing(history: History) -> int:
    """Return how many deliveries the readers of the event streams have not seen yet."""
    seen = {(item.member, item.id) for item in history.seen}
    arrived = {item.id for item in history.seen}
    count = 0
    for send in history.sends:
        if send.accepted_s is None or send.provokes is not None:
            continue
        if send.kind == QUEUE:
            count += send.id not in arrived
        else:
            count += sum((member, send.id) not in seen for member in recipients(history, send))
    return count


def _figures(history: History, workload: Workload) -> dict[str, int]:
    provoked = [send for send in history.sends if send.provokes is not None]
    accepted = sum(send.accepted_s is not None for send in history.sends if send.provokes is None)
    answers = {f"answered {status}": count for status, count in sorted(workload.answers.items())}
    return {
        "sent": len(history.sends),
        "accepted": accepted,
        "provoked": len(provoked),
        "refused": sum(bool(send.refusals) for send in provoked),
        "delivered": len(history.arrivals),
        "unanswered": workload.unanswered,
        "marked": len(history.marked),
        **answers,
    }
