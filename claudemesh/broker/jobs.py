"""What a broker does by itself, in small batches between the accepts (broker.md, Retention and audits).

Each job is also a command. A job that goes by the time of day refuses to run when the clock has jumped
since the broker started: a year that is skipped must not delete a year of messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from claudemesh.broker.audit import Audit
from claudemesh.broker.cluster import Cluster
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.store.base import CheckPosition, Finding, Store
from claudemesh.protocol import CloseCode
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import OnCrash, TaskOwner, repeat

log = get_logger("broker.jobs")

MAX_CLOCK_JUMP_MS = 3_600_000
MAX_FINDINGS = 100
_HOUR_S = 3600.0
_IDLE_EPHEMERAL_MS = 120_000
_BACKOFF = Backoff(initial_s=5, cap_s=300)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did: `count` rows went (or were looked at), with what was found, if it is a check."""

    job: str
    count: int
    findings: tuple[Finding, ...] = ()
    found: int = 0


class ClockJumped(Exception):
    """The time of day is not where it should be; the message says by how much."""


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[], Awaitable[Outcome]]
    every_s: float
    by_the_clock: bool = True


class Jobs:
    """Runs each job when it is due, one at a time, and on demand."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        audit: Audit,
        clock: Clock,
        metrics: BrokerMetrics,
        degraded: Degraded,
        on_crash: OnCrash,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._degraded = degraded
        self._one_at_a_time = asyncio.Lock()
        self._tasks = TaskOwner(on_crash)
        self._started_wall_ms = clock.wall_ms()
        self._started_s = clock.monotonic()
        self._jobs = {
            "message-sweep": _Job(self._sweep_messages, _HOUR_S),
            "dedupe-sweep": _Job(self._sweep_dedupe, _HOUR_S),
            "ephemeral-reaper": _Job(self._reap, 60.0),
            "orphan-check": _Job(self._check, 24 * _HOUR_S, by_the_clock=False),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Every job, in the order of its table."""
        return tuple(self._jobs)

    def start(self) -> None:
        """Run each job again and again, first after its own interval."""
        for name, job in self._jobs.items():
            self._tasks.start(self._repeat(name, job), name)

    async def stop(self) -> None:
        """Stop between two batches."""
        await self._tasks.stop()

    async def run(self, name: str) -> Outcome:
        """Run a job now. `KeyError`: no job of this name; `ClockJumped`: it would go by a wrong time."""
        job = self._jobs[name]
        jump_ms = self._clock_jump_ms()
        if job.by_the_clock and abs(jump_ms) > MAX_CLOCK_JUMP_MS:
            self._metrics.job_runs.labels(name, "refused").inc()
            raise ClockJumped(
                f"the clock has jumped by {jump_ms / 1000:.0f} s since the broker started: set it right, "
                "then restart the broker"
            )
        async with self._one_at_a_time:
            try:
                outcome = await job.run()
            except StorageError:
                self._metrics.job_runs.labels(name, "failed").inc()
                raise
        self._metrics.job_runs.labels(name, "done").inc()
        if outcome.count:
            log.info("job_done", job=name, count=outcome.count, found=outcome.found)
        return outcome

    def _clock_jump_ms(self) -> float:
        wall_ms = self._clock.wall_ms() - self._started_wall_ms
        return wall_ms - (self._clock.monotonic() - self._started_s) * 1000

    async def _repeat(self, name: str, job: _Job) -> None:
        await repeat(lambda: self.run(name), job.every_s, name.replace("-", "_"), _BACKOFF, self._degraded)

    async def _sweep_messages(self) -> Outcome:
        now_ms, after, count = self._clock.wall_ms(), 0, 0
        while True:
            swept = await self._store.sweep_messages(now_ms, after)
            count += swept.count
            if swept.after is None:
                return Outcome("message-sweep", count)
            after = swept.after

    async def _sweep_dedupe(self) -> Outcome:
        count = 0
        while swept := await self._store.sweep_dedupe(self._clock.wall_ms()):
            count += swept
        return Outcome("dedupe-sweep", count)

    async def _reap(self) -> Outcome:
        now_ms = self._clock.wall_ms()
        gone = await self._store.reap_ephemeral(now_ms, now_ms - _IDLE_EPHEMERAL_MS)
        for mesh_id, member_id in gone:
            self._audit.record(mesh_id, "ephemeral_member_left", member_id)
            self._cluster.disconnect(mesh_id, member_id, CloseCode.REVOKED, "this ephemeral member has left")
        return Outcome("ephemeral-reaper", len(gone))

    async def _check(self) -> Outcome:
        findings: list[Finding] = []
        position: CheckPosition | None = None
        rows = found = 0
        while True:
            checked = await self._store.check(position)
            rows += checked.rows
            found += len(checked.findings)
            for finding in checked.findings:
                self._metrics.violations.labels(finding.kind).inc()
                log.error(
                    "atomicity_violation_found", kind=finding.kind, message_id=finding.broker_message_id
                )
            findings += checked.findings[: MAX_FINDINGS - len(findings)]
            if checked.position is None:
                return Outcome("orphan-check", rows, tuple(findings), found)
            position = checked.position
