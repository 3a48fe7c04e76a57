"""Hook service: runs the jobs of messages and events, and queues the replies of their hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from claudemesh.daemon.hooks.manifest import Hook
from claudemesh.daemon.hooks.replies import Replies, reply_in
from claudemesh.daemon.hooks.runner import Ran
from claudemesh.daemon.hooks.runs import HookRuns
from claudemesh.daemon.hooks.worker_pool import ForkServerLost
from claudemesh.daemon.inbox.hook_jobs import HookJobs, Job
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.errors import StorageError, StorageUnavailable
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("hooks")

_PAGE = 64


class Hooks:
    """Runs the jobs of hooks, `concurrency` at a time."""

    def __init__(
        self,
        jobs: HookJobs,
        runs: HookRuns,
        new_id: Callable[[], str],
        submit: Callable[[SendRequest], Awaitable[Answer]],
        concurrency: int,
    ) -> None:
        self._jobs = jobs
        self._runs = runs
        self._new_id = new_id
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._replies = Replies(submit, runs.loop_guard)
        self._backoff = Backoff(initial_s=0.2, cap_s=10)
        self._removals: Batcher[int, None] = Batcher(jobs.remove, max_pending=1 << 20)
        self._tasks = TaskOwner()
        self._waiting = asyncio.Event()
        self._closing = False

    def wake(self) -> None:
        """Look for new jobs."""
        self._waiting.set()

    def tell(self, name: str, event: Mapping[str, Any]) -> None:
        """Add a job for an event of the daemon itself or of a member, such as `on-startup`."""
        if self._runs.enabled(name) is not None and not self._closing:
            self._tasks.start(self._write_job(name, event), "hook_job")

    async def run(self) -> None:
        """Run jobs until cancelled, first those that an earlier run of the daemon left."""
        parked = await self._recover()
        if parked:
            log.error("hook_jobs_parked", count=parked)
        last = 0
        while True:
            self._waiting.clear()
            try:
                jobs = await self._jobs.after(last, _PAGE)
            except StorageError as error:
                log.warning("hook_jobs_unreadable", error=str(error))
                await asyncio.sleep(self._backoff.delay_s(1))
                continue
            for job in jobs:
                last = job.id
                await self._slots.acquire()
                if self._closing:
                    return
                self._tasks.start(self._do(job), "hook")
            if not jobs:
                await self._waiting.wait()

    async def _recover(self) -> int:
        """Count a run for the jobs that an earlier run left, retrying while the disk is full. No hook runs
        before."""
        failures = 0
        while True:
            try:
                return await self._jobs.recover(self._concurrency)
            except StorageUnavailable as error:
                failures += 1
                if failures == 1:
                    log.warning("hooks_wait_for_the_disk", error=str(error))
                await asyncio.sleep(self._backoff.delay_s(failures))

    async def finish(self, grace_s: float) -> None:
        """Wait up to `grace_s` seconds for running hooks, then end them. Their jobs stay for the next
        start."""
        self._closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self._tasks.join()
        except TimeoutError:
            log.warning("hooks_cut_off")
        await self._tasks.stop()
        await self._removals.close()
        self._runs.close()

    async def _write_job(self, name: str, event: Mapping[str, Any]) -> None:
        try:
            await self._jobs.add(name, self._new_id(), {"event": name, **event})
        except StorageError as error:
            log.warning("hook_job_lost", hook=name, error=str(error))
        self.wake()

    async def _do(self, job: Job) -> None:
        """Run one job. Its place is free again before its reply is sent."""
        hook = self._runs.enabled(job.hook)
        try:
            failpoint("hook.before_run")
            ran = None if hook is None else await self._runs.run(hook, job.event_id, job.event)
        except ForkServerLost as error:
            log.error("hook_left_for_the_next_start", hook=job.hook, event_id=job.event_id, error=str(error))
            return
        finally:
            self._slots.release()
        if hook is not None and ran is not None:
            await self._conclude(hook, job, ran)
        try:
            await self._removals.submit(job.id)
        except StorageError as error:
            log.warning(
                "hook_runs_again_at_the_next_start", hook=job.hook, event_id=job.event_id, error=str(error)
            )

    async def _conclude(self, hook: Hook, job: Job, ran: Ran) -> None:
        outcome = ran.outcome
        text = reply_in(outcome.stdout) if outcome.exit == 0 else None
        replied = False
        if text is not None and not hook.allow_reply:
            log.warning(
                "hook_reply_refused", hook=hook.name, event_id=job.event_id, error="allow_reply is false"
            )
        elif text is not None:
            replied = await self._replies.send(hook.name, job.event_id, job.event, text)
        self._runs.tell_of(hook, job.event_id, ran, replied=replied)
