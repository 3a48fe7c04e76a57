"""Hook service: turns messages and events into jobs, runs them, and queues their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.hooks import presend
from claudemesh.daemon.hooks.callers import descends_from
from claudemesh.daemon.hooks.capability import Capabilities, Grant
from claudemesh.daemon.hooks.files import HookNotRunnable
from claudemesh.daemon.hooks.loop_guard import LoopGuard
from claudemesh.daemon.hooks.manifest import NO_HOOKS, PRE_SEND, Hook, Manifest
from claudemesh.daemon.hooks.replies import Replies, reply_in
from claudemesh.daemon.hooks.runner import HookMetrics, HookPlaces, Ran, Runner
from claudemesh.daemon.hooks.worker_pool import ForkServerLost, Outcome
from claudemesh.daemon.inbox.hook_jobs import HookJobs, Job
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageError, StorageUnavailable
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("hooks")

_PAGE = 64
_FORK_SERVER_TRIES = 5
# A request of a hook may be read after the hook has ended.
_AFTERWARDS_S = 5.0


class Hooks:
    """Runs what the manifest in force says, `concurrency` at a time; `pre-send` has places of its own."""

    def __init__(
        self,
        jobs: HookJobs,
        places: HookPlaces,
        metrics: HookMetrics,
        bus: Bus,
        clock: Clock,
        new_id: Callable[[], str],
        submit: Callable[[SendRequest], Awaitable[Answer]],
        is_sender: Callable[[SendRequest, Mapping[str, Any]], bool],
        concurrency: int,
        manifest: Manifest = NO_HOOKS,
    ) -> None:
        self._jobs = jobs
        self._metrics = metrics
        self._bus = bus
        self._new_id = new_id
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._loop_guard = LoopGuard(clock.monotonic)
        self._capabilities = Capabilities(clock.monotonic)
        self._replies = Replies(submit, self._loop_guard)
        parts = (places, metrics, self._capabilities, self._loop_guard, is_sender, clock.monotonic)
        self._runner, self._guard = Runner(*parts, concurrency), Runner(*parts, concurrency)
        self._backoff = Backoff(initial_s=0.2, cap_s=10)
        self._removals: Batcher[int, None] = Batcher(jobs.remove, max_pending=1 << 20)
        self._tasks = TaskOwner()
        self._waiting = asyncio.Event()
        self._closing = False
        self._live = 0
        self._last_ended = -_AFTERWARDS_S
        self._clock = clock
        self._manifest = manifest

    # What the other parts ask.

    def put_in_force(self, manifest: Manifest) -> None:
        """Run the hooks of another manifest from now on. Runs under way end as they began."""
        self._manifest = manifest

    def for_message(self, kind: str, topic: str | None, *, mentioned: bool) -> tuple[str, ...]:
        """Name the hooks whose jobs belong into a message's transaction."""
        return self._manifest.for_message(kind, topic, mentioned=mentioned)

    def wake(self) -> None:
        """There may be new jobs."""
        self._waiting.set()

    def tell(self, name: str, event: Mapping[str, Any]) -> None:
        """Something happened to the daemon itself: `on-startup`, `on-disconnect`, `on-reconnect`."""
        if self._manifest.enabled(name) is not None and not self._closing:
            self._tasks.start(self._write_job(name, event), "hook_job")

    @property
    def guards_sends(self) -> bool:
        """Whether a pre-send hook is to be asked."""
        return self._manifest.enabled(PRE_SEND) is not None

    async def before_send(self, request: SendRequest, client_message_id: str) -> SendRequest | Answer:
        """Ask the pre-send hook; without one the send stays as it is."""
        hook = self._manifest.enabled(PRE_SEND)
        if hook is None:
            return request
        return await presend.ask(
            lambda event: self._run_guard(hook, client_message_id, event), request, client_message_id
        )

    def grant(self, token: str) -> Grant | None:
        """Return what a capability token allows now."""
        return self._capabilities.find(token)

    def is_hook(self, pid: int) -> bool:
        """Tell whether a process is a hook, or was started by one."""
        if not self._live and self._clock.monotonic() - self._last_ended > _AFTERWARDS_S:
            return False
        return descends_from(pid, self._runner.pids | self._guard.pids)

    # Its own life.

    async def run(self) -> None:
        """Run jobs as they come, until cancelled; those that an earlier life left come first."""
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
        """Count what an earlier life left, as soon as the disk takes that; no hook runs before."""
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
        """Let hooks that run come to their end, then end them; their jobs stay for the next start."""
        self._closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self._tasks.join()
        except TimeoutError:
            log.warning("hooks_cut_off")
        await self._tasks.stop()
        await self._removals.close()
        self._runner.close()
        self._guard.close()

    async def _write_job(self, name: str, event: Mapping[str, Any]) -> None:
        try:
            await self._jobs.add(name, self._new_id(), {"event": name, **event})
        except StorageError as error:
            log.warning("hook_job_lost", hook=name, error=str(error))
        self.wake()

    async def _do(self, job: Job) -> None:
        """Run one job; the place is free again before its answer is."""
        hook = self._manifest.enabled(job.hook)
        try:
            failpoint("hook.before_run")
            ran = None if hook is None else await self._run(self._runner, hook, job.event_id, job.event)
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
        self._tell_of(hook, job.event_id, ran, replied=replied)

    async def _run_guard(self, hook: Hook, client_message_id: str, event: Mapping[str, Any]) -> Ran | None:
        try:
            ran = await self._run(self._guard, hook, client_message_id, event)
        except ForkServerLost as error:
            log.error("hook_not_run", hook=hook.name, event_id=client_message_id, reason=str(error))
            return None
        if ran is not None:
            self._tell_of(hook, client_message_id, ran, replied=False)
        return ran

    async def _run(self, runner: Runner, hook: Hook, event_id: str, event: Mapping[str, Any]) -> Ran | None:
        told = {"event": "message", **event, "hook": hook.name, "event_id": event_id}
        for attempt in range(1, _FORK_SERVER_TRIES + 1):
            self._live += 1
            try:
                return await runner.run(hook, self._manifest, event_id, told)
            except HookNotRunnable as error:
                log.error("hook_not_run", hook=hook.name, event_id=event_id, reason=str(error))
                self._metrics.hook_ran(hook.name, "not_started", 0)
                self._tell_of(hook, event_id, Ran(Outcome(error=str(error))), replied=False)
                return None
            except ForkServerLost:
                if attempt == _FORK_SERVER_TRIES:
                    raise
                await asyncio.sleep(self._backoff.delay_s(attempt))
            finally:
                self._live -= 1
                self._last_ended = self._clock.monotonic()
        raise AssertionError

    def _tell_of(self, hook: Hook, event_id: str, ran: Ran, *, replied: bool) -> None:
        """Write the audit line, and publish the event."""
        outcome = ran.outcome
        if hook.audit:
            log.audit(
                "hook_run",
                hook=hook.name,
                event_id=event_id,
                exit=outcome.exit,
                signal=outcome.signal,
                timed_out=outcome.timed_out,
                error=outcome.error,
                duration_ms=outcome.duration_ms,
                stdout_bytes=outcome.stdout_bytes,
                stderr_bytes=outcome.stderr_bytes,
                output_truncated=outcome.stdout_bytes > len(outcome.stdout),
                survivors_ended=outcome.survivors,
                replied=replied,
                capability_calls=list(ran.calls),
            )
        data = {
            "hook": hook.name,
            "event_id": event_id,
            "exit": outcome.exit,
            "outcome": outcome.word,
            "duration_ms": outcome.duration_ms,
            "replied": replied,
        }
        self._bus.publish([BusEvent("hook_executed", data)])
