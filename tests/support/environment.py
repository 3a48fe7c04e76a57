"""The environment of a broker's part, for tests of one part by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.environment import Environment
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.types import Lease
from claudemesh.runtime.clock import Clock, SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.lived import LivedClock


def no_crash(task: str, error: BaseException) -> None:
    """Fail the test: a background task of the part has failed."""
    raise AssertionError(f"{task} failed: {error!r}") from error


def environment(
    *,
    clock: Clock | None = None,
    limits: Limits | None = None,
    broker_id: str = "one",
    on_crash: Callable[[str, BaseException], None] = no_crash,
) -> Environment:
    """Return an environment with metrics and conditions of its own."""
    clock, metrics = clock or SystemClock(), BrokerMetrics()
    return Environment(
        broker_id=broker_id,
        limits=limits or Limits(),
        clock=clock,
        lived=LivedClock(clock),
        metrics=metrics,
        degraded=Degraded(Conditions(clock), clock, metrics),
        on_crash=on_crash,
    )


class SignalStore:
    """The part of a shared database that carries signals and leases, in memory."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.failures: list[Exception] = []
        self.rows: Mapping[str, Sequence[Lease]] = {}
        self._hear: Callable[[str], None] | None = None

    async def signal(self, payloads: Sequence[str]) -> None:
        """Keep what a broker publishes."""
        self.sent += [orjson.loads(payload) for payload in payloads]

    async def listen(
        self, hear: Callable[[str], None], resumed: Callable[[], None], worked: Callable[[], None]
    ) -> None:
        """Listen until the test ends."""
        self._hear = hear
        resumed()
        worked()
        await asyncio.Event().wait()

    async def leases(self, mesh_ids: Collection[str], now_ms: int) -> Mapping[str, Sequence[Lease]]:
        """Return the leases that the test has put here, after the failures that it asked for."""
        if self.failures:
            raise self.failures.pop()
        return self.rows

    async def receive(self, kind: str, **fields: object) -> None:
        """Pass a signal of the broker `two` to the one that listens."""
        await self.pass_on(orjson.dumps({"from": "two", "kind": kind, **fields}).decode())

    async def pass_on(self, payload: str) -> None:
        """Pass a payload as it is to the broker that listens."""
        while self._hear is None:  # noqa: ASYNC110 - listening begins in a task of its own
            await asyncio.sleep(0)
        self._hear(payload)
