"""Audit events: what an operator may ask about later, written after the fact and off the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.store.base import AuditEvent, Store
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.audit")

_MAX_PENDING = 4096


class Audit:
    """Writes audit events in the background, several to a commit.

    At most 4096 events wait. One more, or one that the store does not take, is in the log alone; `Degraded`
    hears of it.
    """

    def __init__(self, store: Store, clock: Clock, degraded: Degraded) -> None:
        self._store = store
        self._clock = clock
        self._degraded = degraded
        self._batcher: Batcher[AuditEvent, None] = Batcher(self._commit, max_pending=_MAX_PENDING)

    def record(self, mesh_id: str, kind: str, member_id: str | None, **data: object) -> None:
        """Note an event; it is in the log at once and in the store soon."""
        log.info(kind, mesh_id=mesh_id, member_id=member_id, **data)
        event = AuditEvent(mesh_id, kind, member_id, self._clock.wall_ms(), data)
        try:
            self._batcher.submit(event).add_done_callback(self._written)
        except Overloaded as error:
            self._degraded.failed("audit", error)

    async def close(self) -> None:
        """Return when everything noted before is written."""
        await self._batcher.close()

    async def _commit(self, events: Sequence[AuditEvent]) -> Sequence[None]:
        await self._store.audit_write(events)
        return [None] * len(events)

    def _written(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._degraded.failed("audit", error)
