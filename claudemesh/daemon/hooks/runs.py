"""Runs of hooks: repeated while the fork server is lost, and told of in log, metrics and events.

Hooks of messages and the pre-send hook have worker pools of their own, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from claudemesh.daemon.hooks.callers import descends_from
from claudemesh.daemon.hooks.capability import Capabilities, Grant
from claudemesh.daemon.hooks.files import HookNotRunnable
from claudemesh.daemon.hooks.loop_guard import LoopGuard
from claudemesh.daemon.hooks.manifest import NO_HOOKS, Hook, Manifest
from claudemesh.daemon.hooks.recent import RecentRuns
from claudemesh.daemon.hooks.runner import HookMetrics, HookPlaces, HookTracing, Ran, Runner
from claudemesh.daemon.hooks.worker_pool import ForkServerLost, HookOutcome
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.logs import get_logger

log = get_logger("hooks")

_FORK_SERVER_TRIES = 5
# A request of a hook may be read after the hook has ended.
_AFTERWARDS_S = 5.0


class HookRuns:
    """Runs hooks of the manifest in force, and knows their tokens and processes."""

    def __init__(
        self,
        places: HookPlaces,
        metrics: HookMetrics,
        recent: RecentRuns,
        is_sender: Callable[[SendRequest, Mapping[str, Any]], bool],
        now: Callable[[], float],
        concurrency: int,
        manifest: Manifest = NO_HOOKS,
        tracing: HookTracing | None = None,
    ) -> None:
        """`is_sender` tells whether a send goes to the sender of an event; `now` is monotonic."""
        self._manifest = manifest
        self._metrics = metrics
        self.recent = recent
        self._now = now
        self.loop_guard = LoopGuard(now)
        self._capabilities = Capabilities(now)
        parts = (places, metrics, self._capabilities, self.loop_guard, is_sender, now)
        self._runner, self._guard = Runner(*parts, concurrency, tracing), Runner(*parts, concurrency, tracing)
        self._backoff = Backoff(initial_s=0.2, cap_s=10)
        self._live = 0
        self._last_ended = -_AFTERWARDS_S

    def put_in_force(self, manifest: Manifest) -> None:
        """Run the hooks of another manifest from now on. Runs under way end as they began."""
        self._manifest = manifest

    def enabled(self, name: str) -> Hook | None:
        """Return the hook of this name, None when the manifest has none that is enabled."""
        return self._manifest.enabled(name)

    def for_message(
        self, kind: str, topic: str | None, *, mentioned: bool, has_files: bool
    ) -> tuple[str, ...]:
        """Name the hooks whose jobs belong into a message's transaction."""
        return self._manifest.for_message(kind, topic, mentioned=mentioned, has_files=has_files)

    def grant(self, token: str) -> Grant | None:
        """Return what a capability token allows now."""
        return self._capabilities.find(token)

    def is_hook(self, pid: int) -> bool:
        """Tell whether a process is a hook, or was started by one."""
        if not self._live and self._now() - self._last_ended > _AFTERWARDS_S:
            return False
        return descends_from(pid, self._runner.pids | self._guard.pids)

    async def run(self, hook: Hook, event_id: str, event: Mapping[str, Any]) -> Ran | None:
        """Run a hook on an event; None when it cannot be run. `ForkServerLost`."""
        return await self._run(self._runner, hook, event_id, event)

    async def run_guard(self, hook: Hook, event_id: str, event: Mapping[str, Any]) -> Ran | None:
        """Run the pre-send hook; None when it cannot be run. `ForkServerLost`."""
        return await self._run(self._guard, hook, event_id, event)

    def close(self) -> None:
        """End every hook that runs."""
        self._runner.close()
        self._guard.close()

    def tell_of(self, hook: Hook, event_id: str, ran: Ran, *, replied: bool) -> None:
        """Write the audit line, keep the run, and publish the event."""
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
        self.recent.ended(data)

    async def _run(self, runner: Runner, hook: Hook, event_id: str, event: Mapping[str, Any]) -> Ran | None:
        told = {"event": "message", **event, "hook": hook.name, "event_id": event_id}
        for attempt in range(1, _FORK_SERVER_TRIES + 1):
            self._live += 1
            try:
                return await runner.run(hook, self._manifest, event_id, told)
            except HookNotRunnable as error:
                log.error("hook_not_run", hook=hook.name, event_id=event_id, reason=str(error))
                self._metrics.hook_ran(hook.name, "not_started", 0)
                self.tell_of(hook, event_id, Ran(HookOutcome(error=str(error))), replied=False)
                return None
            except ForkServerLost:
                if attempt == _FORK_SERVER_TRIES:
                    raise
                await asyncio.sleep(self._backoff.delay_s(attempt))
            finally:
                self._live -= 1
                self._last_ended = self._now()
        raise AssertionError
