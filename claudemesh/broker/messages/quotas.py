"""Quotas of stored bytes, for each member and mesh (docs/spec/broker.md, Limiter).

The store keeps the counts. This is a cache for active meshes: it adds what is accepted here and reads the
counts again every 5 s in the background, so that a quota may be exceeded by what is accepted in between.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct, field

from claudemesh.broker.environment import Environment
from claudemesh.broker.limiter.base import Allowance
from claudemesh.broker.store.facets import UsageStore
from claudemesh.runtime.services import TaskOwner

Over: TypeAlias = Literal["member", "mesh"]

_REFRESH_S: Final = 5.0
# A mesh without sends for this long is dropped from the cache.
_IDLE_S: Final = 600.0


class _Usage(Struct):
    members: dict[str, int] = field(default_factory=dict)
    total: int = 0
    read_at: float = -_REFRESH_S
    reading: bool = False
    # Bytes accepted since the read under way began.
    added: dict[str, int] = field(default_factory=dict)


class Quotas:
    """Checks quotas without waiting. Until the counts of a mesh are read, no quota is exceeded."""

    def __init__(self, store: UsageStore, env: Environment) -> None:
        self._store = store
        self._env = env
        self._meshes: dict[str, _Usage] = {}
        self._tasks = TaskOwner()

    def over(self, mesh_id: str, member_id: str, size: int, allowance: Allowance) -> Over | None:
        """Return the quota that `size` more bytes would exceed, the member's or the mesh's."""
        usage = self._usage(mesh_id)
        if usage.members.get(member_id, 0) + size > allowance.member_stored_bytes:
            return "member"
        return "mesh" if usage.total + size > allowance.stored_bytes else None

    def add(self, mesh_id: str, member_id: str, size: int) -> None:
        """Add an accepted body."""
        usage = self._meshes.get(mesh_id) or self._usage(mesh_id)
        usage.members[member_id] = usage.members.get(member_id, 0) + size
        usage.total += size
        if usage.reading:
            usage.added[member_id] = usage.added.get(member_id, 0) + size

    async def close(self) -> None:
        """Stop reading."""
        await self._tasks.stop()

    def _usage(self, mesh_id: str) -> _Usage:
        now = self._env.clock.monotonic()
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
            self._env.degraded.failed("quotas", error)
        else:
            # A commit during the read may be in it already and counts twice until the next one.
            for member_id, size in usage.added.items():
                members[member_id] = members.get(member_id, 0) + size
            usage.members, usage.total = members, sum(members.values())
        finally:
            usage.added.clear()
            usage.reading = False
            usage.read_at = self._env.clock.monotonic()
