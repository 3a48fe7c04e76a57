"""When a hook that could run does not, because it could not be held as its entry demands."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from claudemesh.daemon.hooks import runner as module
from claudemesh.daemon.hooks.capability import Capabilities
from claudemesh.daemon.hooks.files import HookNotRunnable
from claudemesh.daemon.hooks.loop_guard import LoopGuard
from claudemesh.daemon.hooks.manifest import Hook, Manifest
from claudemesh.daemon.hooks.runner import HookPlaces, Runner
from claudemesh.daemon.hooks.worker_pool import Isolation, WorkerPool
from claudemesh.daemon.metrics import DaemonMetrics


@asynccontextmanager
async def runner_of(tmp_path: Path) -> AsyncGenerator[Runner]:
    """A runner with one hook, on-dm, that would succeed."""
    folder = tmp_path / "hooks"
    folder.mkdir(mode=0o700)
    hook = folder / "on-dm"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o700)

    def now() -> float:
        return 0.0

    made = Runner(
        HookPlaces(folder, tmp_path / "sock", "demo"),
        DaemonMetrics(),
        Capabilities(now),
        LoopGuard(now),
        lambda request, event: False,
        now,
        8,
    )
    try:
        yield made
    finally:
        made.close()


async def run(runner: Runner, hook: Hook) -> int | None:
    ran = await runner.run(hook, Manifest({hook.name: hook}), "E1", {"event": "message", "body": "x"})
    return ran.outcome.exit


async def _no_namespaces(keepers: WorkerPool) -> Isolation:
    return Isolation(pid_namespace=False, network_namespace=False)


async def test_deny_runs_where_the_network_cannot_be_taken_and_require_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """deny is logged and counted; require fails closed."""
    monkeypatch.setattr(WorkerPool, "isolation", _no_namespaces)
    async with runner_of(tmp_path) as runner:
        assert await run(runner, Hook("on-dm", network_policy="deny")) == 0
        assert await run(runner, Hook("on-dm", network_policy="allow")) == 0
        with pytest.raises(HookNotRunnable, match="network_policy requires that"):
            await run(runner, Hook("on-dm", network_policy="require"))


async def test_a_sandbox_that_is_not_there_is_no_reason_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook with bubblewrap configured does not run without it."""
    monkeypatch.setattr(module, "find_bubblewrap", lambda: None)
    async with runner_of(tmp_path) as runner:
        with pytest.raises(HookNotRunnable, match="install the package bubblewrap"):
            await run(runner, Hook("on-dm", sandbox="bubblewrap"))
