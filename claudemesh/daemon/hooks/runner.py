"""Runner of hooks: environment, standard input, isolation and outcome of one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from claudemesh.daemon.hooks.capability import LIFETIME_S, Capabilities, Grant
from claudemesh.daemon.hooks.files import HookNotRunnable, find_hook
from claudemesh.daemon.hooks.loop_guard import LoopGuard
from claudemesh.daemon.hooks.manifest import Hook, Manifest
from claudemesh.daemon.hooks.payload import encode_event, weight_of
from claudemesh.daemon.hooks.sandbox import find_bubblewrap, sandboxed
from claudemesh.daemon.hooks.worker_pool import Command, HookOutcome, WorkerPool
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.protocol.traceparent import traceparent_in
from claudemesh.runtime import aside
from claudemesh.runtime.files import UnsafeFile, make_private_dir
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.tracing.spans import Begun

log = get_logger("hooks")

_PATH = "/usr/bin:/bin"


class HookMetrics(Protocol):
    """Metrics that the runner counts."""

    def hook_ran(self, hook: str, exit: str, seconds: float) -> None: ...
    def hook_called(self, hook: str, scope: str) -> None: ...
    def hook_unenforceable(self) -> None: ...


class HookTracing(Protocol):
    """The part of the traces that the runner uses."""

    def hook(self, traceparent: str) -> Begun | None: ...
    def hook_ended(self, begun: Begun, name: str, word: str) -> None: ...


class HookPlaces(Struct, frozen=True):
    """Folder, socket and mesh of a daemon's hooks."""

    folder: Path
    sock: Path
    mesh: str


class Ran(Struct, frozen=True):
    """The outcome of a run, and the number of the hook's API calls."""

    outcome: HookOutcome
    calls: tuple[str, ...] = ()


class Runner:
    """Runs hooks under their manifest; each network policy has a worker pool of its own."""

    def __init__(
        self,
        places: HookPlaces,
        metrics: HookMetrics,
        capabilities: Capabilities,
        loop_guard: LoopGuard,
        is_sender: Callable[[SendRequest, Mapping[str, Any]], bool],
        now: Callable[[], float],
        concurrency: int,
        tracing: HookTracing | None = None,
    ) -> None:
        self._places = places
        self._metrics = metrics
        self._capabilities = capabilities
        self._loops = loop_guard
        self._is_sender = is_sender
        self._now = now
        self._tracing = tracing
        self._denied = WorkerPool("deny", concurrency)
        self._allowed = WorkerPool("allow", concurrency)
        # Bubblewrap creates its own namespaces, and needs a /proc that shows its own processes.
        self._plain = WorkerPool("allow", concurrency, "none")

    @property
    def pids(self) -> frozenset[int]:
        """The processes below which every hook runs."""
        return frozenset(pid for pool in self._all if (pid := pool.pid) is not None)

    async def run(self, hook: Hook, manifest: Manifest, event_id: str, event: Mapping[str, Any]) -> Ran:
        """Run a hook to its end. Raise `HookNotRunnable` with the cause, or `ForkServerLost`."""
        path = find_hook(self._places.folder, hook.name, manifest.hooks.keys() - {hook.name})
        pool = await self._pool_of(hook)
        env = {
            "PATH": _PATH,
            "CLAUDEMESH_MESH": self._places.mesh,
            "CLAUDEMESH_HOOK_NAME": hook.name,
            "CLAUDEMESH_EVENT_ID": event_id,
            "CLAUDEMESH_DAEMON_SOCK": str(self._places.sock),
        }
        begun = None
        traceparent = traceparent_in(event.get("meta"))
        if traceparent is not None:
            begun = None if self._tracing is None else self._tracing.hook(traceparent)
            env["TRACEPARENT"] = traceparent if begun is None else begun.context.traceparent
        grant = self._grant(hook, event)
        token = None
        if grant is not None:
            token = env["CLAUDEMESH_CAPABILITY_TOKEN"] = self._capabilities.issue(grant)
        try:
            redact = hook.redact_payload
            stdin = await aside.run(weight_of(event, redact), encode_event, event, redact)
            outcome = await pool.run(self._command(hook, path, env, stdin))
        finally:
            if token is not None:
                self._capabilities.revoke(token)
        self._keep_stderr(hook.name, outcome)
        self._metrics.hook_ran(hook.name, outcome.word, outcome.duration_ms / 1000)
        if self._tracing is not None and begun is not None:
            self._tracing.hook_ended(begun, hook.name, outcome.word)
        return Ran(outcome, tuple(grant.calls) if grant is not None else ())

    def close(self) -> None:
        """End all running hooks."""
        for pool in self._all:
            pool.close()

    @property
    def _all(self) -> tuple[WorkerPool, ...]:
        return self._denied, self._allowed, self._plain

    async def _pool_of(self, hook: Hook) -> WorkerPool:
        if hook.sandbox == "bubblewrap":
            return self._plain
        if hook.network_policy == "allow":
            return self._allowed
        if not (await self._denied.isolation()).network_namespace:
            if hook.network_policy == "require":
                raise HookNotRunnable(
                    "the network cannot be taken from it here, and its network_policy requires that"
                )
            log.warning("hook_unenforceable", hook=hook.name, network_policy="deny")
            self._metrics.hook_unenforceable()
        return self._denied

    def _grant(self, hook: Hook, event: Mapping[str, Any]) -> Grant | None:
        if not hook.capability_token_scope:
            return None
        return Grant(
            hook=hook.name,
            event=event,
            scopes=hook.capability_token_scope,
            expires_at=self._now() + LIFETIME_S,
            loop_guard=self._loops,
            is_sender=self._is_sender,
            count=self._metrics.hook_called,
        )

    def _command(self, hook: Hook, path: Path, env: Mapping[str, str], stdin: bytes) -> Command:
        argv = [str(path)]
        if hook.sandbox == "bubblewrap":
            bubblewrap = find_bubblewrap()
            if bubblewrap is None:
                raise HookNotRunnable("sandbox = bubblewrap needs bwrap: install the package bubblewrap")
            argv = sandboxed(bubblewrap, path, self._places.sock, network=hook.network_policy == "allow")
        return Command(
            argv=argv,
            env=env,
            cwd=str(self._places.folder),
            stdin=stdin,
            timeout_s=hook.timeout_s,
            stdout_limit=hook.output_size_limit,
            killpg=hook.killpg_on_timeout,
        )

    def _keep_stderr(self, name: str, outcome: HookOutcome) -> None:
        """Write the standard error of a run to a file. It is not logged, because it may hold message text."""
        if not outcome.stderr:
            return
        try:
            folder = self._places.folder / "stderr"
            make_private_dir(folder)
            _overwrite(folder / name, outcome.stderr)
        except (OSError, UnsafeFile) as error:
            log.warning("hook_stderr_lost", hook=name, error=str(error))


def _overwrite(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
