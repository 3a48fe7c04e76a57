"""Quotas of stored bytes, per member and mesh (docs/spec/broker.md, Limiter).

The store keeps the counts. This keeps a copy of those of active meshes, adds what is accepted here, and reads
them again every few seconds, beside the accepts: a quota may be passed by what is accepted in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.limiter.base import Allowance
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.store.facets import UsageStore
from claudemesh.runtime.services import TaskOwner

Over: TypeAlias = Literal["member", "mesh"]

_REFRESH_S: Final = 5.0
# Meshes that were not sent to for so long are forgotten.
_IDLE_S: Final = 600.0


@dataclass(slots=True)
class _Usage:
    members: dict[str, int] = field(default_factory=dict)
    total: int = 0
    read_at: float = -_REFRESH_S
    reading: bool = False
    # What was accepted since the read under way began.
    added: dict[str, int] = field(default_factory=dict)


class Quotas:
    """Check of quotas. It never waits: until the counts are read, no quota is exceeded."""

    def __init__(
        self, store: UsageStore, monotonic: Callable[[], float], degraded: Degraded, metrics: BrokerMetrics
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._degraded = degraded
        self._metrics = metrics
        self._meshes: dict[str, _Usage] = {}
        self._tasks = TaskOwner()

    def over(self, mesh_id: str, member_id: str, size: int, allowance: Allowance) -> Over | None:
        """Return whose quota this much more would pass, the member's or the mesh's."""
        usage = self._usage(mesh_id)
        if usage.members.get(member_id, 0) + size > allowance.member_stored_bytes:
            return "member"
        return "mesh" if usage.total + size > allowance.stored_bytes else None

    def add(self, mesh_id: str, member_id: str, size: int) -> None:
        """Note what was accepted."""
        usage = self._usage(mesh_id)
        usage.members[member_id] = usage.members.get(member_id, 0) + size
        usage.total += size
        if usage.reading:
            usage.added[member_id] = usage.added.get(member_id, 0) + size

    async def close(self) -> None:
        """Read no more."""
        await self._tasks.stop()

    def _usage(self, mesh_id: str) -> _Usage:
        now = self._monotonic()
        usage = self._meshes.get(mesh_id)
        if usage is None:
            self._meshes = {key: one for key, one in self._meshes.items() if now - one.read_at < _IDLE_S}
            usage = self._meshes[mesh_id] = _Usage(read_at=now - _REFRESH_S)
        if now - usage.read_at >= _REFRESH_S and not usage.reading:
            usage.reading = True
            self._tasks.start(self._read(mesh_id, usage), "quota_read")
        return usage

    async def _read(self, mesh_id: str, usage: _Usage) -> None:
        try:
            members = dict(await self._store.stored(mesh_id))
        except Exception as error:
            self._degraded.failed("quotas", error)
        else:
            # A commit during the read may be in it already and counts twice until the next one.
            for member_id, size in usage.added.items():
                members[member_id] = members.get(member_id, 0) + size
            usage.members, usage.total = members, sum(members.values())
        finally:
            usage.added.clear()
            usage.reading = False
            usage.read_at = self._monotonic()
