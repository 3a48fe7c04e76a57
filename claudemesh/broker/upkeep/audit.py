"""Audit events: an append-only record for operators, written in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.broker.environment import Environment
from claudemesh.broker.store.facets import AuditStore
from claudemesh.broker.store.types import AuditEvent
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.audit")

_MAX_PENDING: Final = 4096
# Events that a member can cause at will by connecting: within this time of one, others of its kind are
# merged.
REPEATING: Final = frozenset({"member_concurrent_connection", "member_clone_suspected"})
TOGETHER_S: Final = 300.0
# Members whose events are merged at a time; events of others are written as they come.
_MAX_HELD: Final = 10_000

_Key: TypeAlias = tuple[str, str, str | None]


class _Held(Struct):
    """The events that followed a written one: the newest, and how many there were."""

    timer: asyncio.TimerHandle
    newest: AuditEvent | None = None
    count: int = 0


class Audit:
    """Writes audit events in the background, several to a commit.

    At most 4096 events wait. An event beyond that, or one that the store does not take, is in the log alone
    and is reported to `Degraded`. Of events that a member can repeat at will the first is written at once,
    and those of the next five minutes as one event with their number in `count`.
    """

    def __init__(
        self,
        store: AuditStore,
        env: Environment,
        together_s: float = TOGETHER_S,
    ) -> None:
        self._store = store
        self._env = env
        self._together_s = together_s
        self._held: dict[_Key, _Held] = {}
        self._batcher: Batcher[AuditEvent, None] = Batcher(self._commit, max_pending=_MAX_PENDING)

    def record(self, mesh_id: str, kind: str, member_id: str | None, **data: object) -> None:
        """Note an event; it is in the log at once and in the store soon."""
        event = AuditEvent(
            mesh_id, kind, member_id, self._env.clock.wall_ms(), data, self._env.lived.now_ms()
        )
        if kind in REPEATING and self._hold(event):
            return
        log.info(kind, mesh_id=mesh_id, member_id=member_id, **data)
        self._write(event)

    async def close(self) -> None:
        """Return when everything noted before is written."""
        for key in list(self._held):
            self._release(key, last=True)
        await self._batcher.close()

    def _hold(self, event: AuditEvent) -> bool:
        """Count an event with others of its kind; False when it is the first."""
        key = (event.mesh_id, event.kind, event.member_id)
        held = self._held.get(key)
        if held is not None:
            held.newest = event
            held.count += 1
            return True
        if len(self._held) < _MAX_HELD:
            self._held[key] = _Held(self._later(key))
        return False

    def _release(self, key: _Key, *, last: bool = False) -> None:
        """Write what was held, and hold on while more comes."""
        held = self._held.pop(key)
        held.timer.cancel()
        if held.newest is None:
            return
        event = held.newest
        event = replace(event, data={**event.data, "count": held.count})
        log.info(event.kind, mesh_id=event.mesh_id, member_id=event.member_id, **event.data)
        self._write(event)
        if not last:
            self._held[key] = _Held(self._later(key))

    def _later(self, key: _Key) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._together_s, self._release, key)

    def _write(self, event: AuditEvent) -> None:
        try:
            self._batcher.submit(event).add_done_callback(self._written)
        except Overloaded as error:
            self._env.degraded.failed("audit", error)

    async def _commit(self, events: Sequence[AuditEvent]) -> Sequence[None]:
        await self._store.write(events)
        return [None] * len(events)

    def _written(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._env.degraded.failed("audit", error)
