"""Jobs: retention, the ephemeral reaper and the checks, in small batches beside the accepts.

Every job goes by the lived clock (upkeep/timekeeper.py), so that no wall clock deletes anything. The last run
of each job is in the database: an overdue job runs shortly after the broker has started, and brokers that
share a database share the schedule. Each job is also a command (docs/spec/broker.md, Retention and audits).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from claudemesh.broker.cluster.cluster import Cluster
from claudemesh.broker.directory.feed import Feed
from claudemesh.broker.environment import Environment
from claudemesh.broker.store.decisions import FINDING_KINDS
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.types import Absent, CheckPosition, Finding, JobRun
from claudemesh.broker.upkeep.audit import Audit
from claudemesh.broker.upkeep.blob_sweep import BlobSweep
from claudemesh.broker.upkeep.timekeeper import Timekeeper
from claudemesh.broker.upkeep.topic_keys import KeyUpkeep
from claudemesh.protocol.errors import CloseCode
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner, supervise

log = get_logger("broker.jobs")

MAX_FINDINGS = 100
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_IDLE_EPHEMERAL_MS = 2 * _MINUTE_MS
# Members reconnect first after a start.
SETTLE_S = 20.0
# The longest wait between two looks at the schedule: another broker may have run the job.
_LOOK_AGAIN_MS = 10 * _MINUTE_MS
_BACKOFF = Backoff(initial_s=5, cap_s=300)


class JobOutcome(Struct, frozen=True):
    """The result of a run: `count` rows were deleted or checked, and a check has found `found` violations."""

    job: str
    count: int
    findings: tuple[Finding, ...] = ()
    found: int = 0


class _Job(Struct, frozen=True):
    run: Callable[[], Awaitable[JobOutcome]]
    every_ms: int


def wait_ms(every_ms: int, last_ms: int | None, now_ms: int) -> int:
    """Return the wait of a job in lived milliseconds; 0 when it is due, never ran, or ran in the future."""
    if last_ms is None or last_ms > now_ms:
        return 0
    return max(0, last_ms + every_ms - now_ms)


class Jobs:
    """Runs each job when it is due, one at a time, and on demand."""

    def __init__(
        self,
        store: Store,
        *,
        cluster: Cluster,
        feed: Feed,
        audit: Audit,
        keys: KeyUpkeep,
        time: Timekeeper,
        env: Environment,
        settle_s: float = SETTLE_S,
    ) -> None:
        for kind in FINDING_KINDS:
            env.metrics.violations.labels(kind)
        self._store = store
        self._cluster = cluster
        self._feed = feed
        self._audit = audit
        self._keys = keys
        self._blobs = BlobSweep(store.blobs, env)
        self._time = time
        self._settle_s = settle_s
        # Ephemeral members without a lease, with the lived time at which they were first found so.
        self._absent: dict[Absent, int] = {}
        # By mesh, the version of the member list at the last run: departed members up to it are deleted.
        self._listed: dict[str, int] = {}
        self._env = env
        self._one_at_a_time = asyncio.Lock()
        self._tasks = TaskOwner(env.on_crash)
        self._jobs = {
            "message-sweep": _Job(self._sweep_messages, _HOUR_MS),
            "dedupe-sweep": _Job(self._sweep_dedupe, _HOUR_MS),
            "ephemeral-reaper": _Job(self._reap, _MINUTE_MS),
            "departed-sweep": _Job(self._forget, _HOUR_MS),
            "audit-prune": _Job(self._prune_audit, _HOUR_MS),
            "topic-keys": _Job(self._keep_topic_keys, _HOUR_MS),
            "stored-check": _Job(self._recount, 24 * _HOUR_MS),
            "orphan-check": _Job(self._check, 24 * _HOUR_MS),
            "blob-sweep": _Job(self._sweep_blobs, _HOUR_MS),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all jobs."""
        return tuple(self._jobs)

    def start(self) -> None:
        """Run each job whenever it is due, an overdue one soon after the start."""
        for name, job in self._jobs.items():
            self._tasks.start(self._repeat(name, job), name)

    async def stop(self) -> None:
        """Stop between two batches."""
        await self._tasks.stop()

    async def schedule(self) -> Sequence[tuple[str, int, JobRun | None]]:
        """Return each job, its interval in milliseconds, and its last run."""
        runs = await self._store.upkeep.job_runs()
        return [(name, job.every_ms, runs.get(name)) for name, job in self._jobs.items()]

    async def run(self, name: str) -> JobOutcome:
        """Run a job now, and note that it ran. `KeyError`: no job of this name."""
        job = self._jobs[name]
        async with self._one_at_a_time:
            try:
                outcome = await job.run()
                await self._store.upkeep.note_job(
                    JobRun(
                        name,
                        self._time.lived.now_ms(),
                        self._time.wall.wall_ms(),
                        outcome.count,
                        outcome.found,
                    )
                )
            except StorageError:
                self._env.metrics.job_runs.labels(name, "failed").inc()
                raise
        self._env.metrics.job_runs.labels(name, "done").inc()
        if outcome.count:
            log.info("job_done", job=name, count=outcome.count, found=outcome.found)
        return outcome

    async def _repeat(self, name: str, job: _Job) -> None:
        async def turns(worked: Callable[[], None]) -> None:
            while True:
                last = (await self._store.upkeep.job_runs()).get(name)
                now_ms = self._time.lived.now_ms()
                left_ms = wait_ms(job.every_ms, None if last is None else last.lived_ms, now_ms)
                if left_ms:
                    await asyncio.sleep(min(left_ms, _LOOK_AGAIN_MS) / 1000)
                else:
                    await self.run(name)
                    worked()

        await asyncio.sleep(self._settle_s)
        await supervise(turns, name.replace("-", "_"), _BACKOFF, self._env.degraded)

    async def _sweep_messages(self) -> JobOutcome:
        now_ms, after, count = self._time.wall.wall_ms(), 0, 0
        while True:
            swept = await self._store.retention.sweep_messages(self._time.lived.now_ms(), now_ms, after)
            count += swept.count
            if swept.after is None:
                return JobOutcome("message-sweep", count)
            after = swept.after

    async def _sweep_dedupe(self) -> JobOutcome:
        count = 0
        while swept := await self._store.retention.sweep_dedupe(self._time.lived.now_ms()):
            count += swept
        return JobOutcome("dedupe-sweep", count)

    async def _prune_audit(self) -> JobOutcome:
        """Delete audit events past their mesh's retention of lived time, or beyond its number of them."""
        count, now_ms = 0, self._time.lived.now_ms()
        for mesh in await self._store.meshes.all():
            before_ms = now_ms - mesh.audit_retention_days * 24 * _HOUR_MS
            while pruned := await self._store.audit.prune(mesh.id, now_ms, before_ms, mesh.audit_events):
                count += pruned
        return JobOutcome("audit-prune", count)

    async def _keep_topic_keys(self) -> JobOutcome:
        return JobOutcome("topic-keys", await self._keys.run())

    async def _recount(self) -> JobOutcome:
        """Compare the counts of stored bytes with the bodies, and correct them."""
        wrong = await self._store.usage.recount()
        if wrong:
            log.error("stored_bytes_corrected", count=wrong)
        return JobOutcome("stored-check", wrong, found=wrong)

    async def _sweep_blobs(self) -> JobOutcome:
        """Delete blobs that are over, and compare the others with their bytes."""
        deleted, damaged = await self._blobs.run()
        return JobOutcome("blob-sweep", deleted, found=damaged)

    async def _reap(self) -> JobOutcome:
        """Let ephemeral members leave that have been without a lease for two minutes of lived time, and those
        whose own time is over."""
        now_ms = self._time.lived.now_ms()
        found = await self._store.retention.absent_ephemerals(now_ms)
        self._absent = {one: self._absent.get(one, now_ms) for one in found}
        idle = [one for one, since_ms in self._absent.items() if now_ms - since_ms >= _IDLE_EPHEMERAL_MS]
        gone = [*await self._store.retention.reap_ephemeral(idle, now_ms)] if idle else []
        gone += await self._store.retention.end_ephemerals(now_ms)
        for mesh_id in {mesh_id for mesh_id, _ in gone}:
            self._feed.publish(mesh_id)
        for mesh_id, member_id in gone:
            self._audit.record(mesh_id, "ephemeral_member_left", member_id)
            self._cluster.disconnect(mesh_id, member_id, CloseCode.REVOKED, "this ephemeral member has left")
            self._keys.news.departed(mesh_id, member_id)
        return JobOutcome("ephemeral-reaper", len(gone))

    async def _forget(self) -> JobOutcome:
        """Delete ephemeral members that had left at the last run. Daemons have seen them go since."""
        count, store = 0, self._store
        versions = await store.directory.versions([mesh.id for mesh in await store.meshes.all()])
        for mesh_id in versions:
            after: int | None = 0
            while after is not None:
                done = await store.departed.forget(mesh_id, after, self._listed.get(mesh_id, -1))
                count, after = count + done.count, done.after
        self._listed = {mesh_id: version.number for mesh_id, version in versions.items()}
        return JobOutcome("departed-sweep", count)

    async def _check(self) -> JobOutcome:
        findings: list[Finding] = []
        position: CheckPosition | None = None
        rows = found = 0
        while True:
            checked = await self._store.retention.check(position)
            rows += checked.rows
            found += len(checked.findings)
            for finding in checked.findings:
                self._env.metrics.violations.labels(finding.kind).inc()
                log.error(
                    "atomicity_violation_found",
                    kind=finding.kind,
                    broker_message_id=finding.broker_message_id,
                )
            findings += checked.findings[: MAX_FINDINGS - len(findings)]
            if checked.position is None:
                return JobOutcome("orphan-check", rows, tuple(findings), found)
            position = checked.position
