"""Leases of connections and last-seen times, kept in the store (docs/spec/broker.md, Presence).

Leases go by the lived clock. Last-seen times are wall time, for showing. Among several brokers a connection
acquires its lease before it is admitted; otherwise leases are written in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.broker.connections.clone_policy import CloneVerdict, judge
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.environment import Environment
from claudemesh.broker.store.facets import PresenceStore
from claudemesh.broker.store.protocol import ClusterStore
from claudemesh.broker.store.types import Mesh, PresenceRow, Seen
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.services import TaskOwner, repeat

_RENEWALS_PER_LEASE = 3
# Precision of the last-seen time of members whose broker died.
_SEEN_EVERY_S = 300.0
_BACKOFF = Backoff(initial_s=0.5, cap_s=5)


class Elsewhere(Struct, frozen=True):
    """A member's leases at other brokers; `others` counts those of other daemon instances."""

    rows: tuple[PresenceRow, ...] = ()
    others: int = 0

    def to_replace(self, verdict: CloneVerdict, instance_id: str) -> tuple[PresenceRow, ...]:
        """Return the connections that have to close: all, or those of the same daemon's broken connection."""
        if verdict is CloneVerdict.REPLACE:
            return self.rows
        return tuple(row for row in self.rows if row.instance_id == instance_id)


class _Arrival(Struct, frozen=True):
    row: PresenceRow
    seen: Seen


class _Departure(Struct, frozen=True):
    connection_id: str
    seen: Seen | None  # None when the connection was never open


class Leases:
    """Acquires, writes, renews and removes leases, and writes when members were seen.

    Changes that come together share a commit. At most 8192 changes wait; more are dropped and reported, and
    the end of the lease repairs what is missing.
    """

    def __init__(self, store: PresenceStore, shared: ClusterStore | None, hub: Hub, env: Environment) -> None:
        self._store = store
        self._shared = shared
        self._hub = hub
        self._env = env
        self._batcher: Batcher[_Arrival | _Departure, None] = Batcher(self._commit)
        self._tasks = TaskOwner(env.on_crash)
        self._seen_at = env.clock.monotonic()

    async def start(self) -> None:
        """Remove the leases of an earlier run of this broker, and begin to renew."""
        await self._store.clear(self._env.broker_id)
        every_s = self._env.limits.lease_s / _RENEWALS_PER_LEASE
        renewing = repeat(self._renew, every_s, "presence_renewal", _BACKOFF, self._env.degraded)
        self._tasks.start(renewing, "presence_renew")

    async def stop(self) -> None:
        """Write what waits, and end."""
        await self._tasks.stop()
        await self._batcher.close()

    async def acquire(
        self, mesh: Mesh, member_id: str, connection_id: str, instance_id: str, *, here: int
    ) -> Elsewhere:
        """Acquire a lease for a new connection, unless the mesh's clone policy refuses the connection.

        Two brokers that do so for one member are served one after the other. `here` counts the member's other
        connections on this broker. An embedded broker needs no lease before the connection is open.
        """
        if self._shared is None:
            return Elsewhere()

        def count(rows: Sequence[PresenceRow]) -> int:
            return sum(row.instance_id != instance_id for row in rows)

        def admits(rows: Sequence[PresenceRow]) -> bool:
            policy, limit = mesh.clone_concurrency_policy, self._env.limits.connections_per_member
            return judge(policy, others=here + count(rows), limit=limit) is not CloneVerdict.REFUSE

        row = self._row(connection_id, mesh.id, member_id, instance_id)
        rows = await self._shared.acquire_lease(row, admits)
        return Elsewhere(tuple(rows), count(rows))

    async def sweep(self) -> None:
        """Acquire again the leases that ran out while the database was away; delete expired ones."""
        if self._shared is None:
            return
        now_ms = self._env.lived.now_ms()
        open_ones = {connection.connection_id: connection for connection in self._hub if connection.is_open}
        for connection_id in await self._shared.without_lease(list(open_ones)):
            connection = open_ones[connection_id]
            row = self._row(connection_id, connection.mesh_id, connection.member_id, connection.instance_id)
            await self._shared.acquire_lease(row, lambda rows: True)
        await self._shared.expire(now_ms)

    def arrived(
        self,
        connection_id: str,
        mesh_id: str,
        member_id: str,
        host: bytes | None,
        *,
        instance_id: str = "",
    ) -> None:
        """Note an open connection: its lease, and when and on which host its member was seen."""
        seen = Seen(mesh_id, member_id, self._env.clock.wall_ms(), host)
        self._submit(_Arrival(self._row(connection_id, mesh_id, member_id, instance_id), seen))

    def departed(self, connection_id: str, mesh_id: str, member_id: str, *, was_open: bool) -> None:
        """Note that a connection has ended, or that one with a lease was never open."""
        seen = Seen(mesh_id, member_id, self._env.clock.wall_ms(), None) if was_open else None
        self._submit(_Departure(connection_id, seen))

    def _row(self, connection_id: str, mesh_id: str, member_id: str, instance_id: str) -> PresenceRow:
        now_ms, broker_id = self._env.lived.now_ms(), self._env.broker_id
        return PresenceRow(
            connection_id, member_id, mesh_id, broker_id, now_ms, self._lease_until(now_ms), instance_id
        )

    def _lease_until(self, now_ms: int) -> int:
        return now_ms + round(self._env.limits.lease_s * 1000)

    def _submit(self, change: _Arrival | _Departure) -> None:
        try:
            self._batcher.submit(change).add_done_callback(self._written)
        except Overloaded as error:
            self._env.degraded.failed("presence", error)

    def _written(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._env.degraded.failed("presence", error)

    async def _commit(self, changes: Sequence[_Arrival | _Departure]) -> Sequence[None]:
        gone = {change.connection_id for change in changes if isinstance(change, _Departure)}
        came = [change.row for change in changes if isinstance(change, _Arrival)]
        seen = [change.seen for change in changes if change.seen is not None]
        rows = [row for row in came if row.connection_id not in gone]
        if rows:
            await self._store.open(rows)
        if seen:
            await self._store.members_seen(newest_of(seen))
        if gone:
            await self._store.close(gone)
        return [None] * len(changes)

    async def _renew(self) -> None:
        await self._store.renew(self._env.broker_id, self._lease_until(self._env.lived.now_ms()))
        now = self._env.clock.monotonic()
        if now - self._seen_at >= _SEEN_EVERY_S:
            await self._store.present_seen(self._env.broker_id, self._env.clock.wall_ms())
            self._seen_at = now


def newest_of(seen: Iterable[Seen]) -> Sequence[Seen]:
    """Return one entry for each member: the newest, with the newest host that was named."""
    newest: dict[str, Seen] = {}
    for entry in seen:
        before = newest.get(entry.member_id)
        if before is not None:
            entry = replace(entry, host=entry.host or before.host)
        newest[entry.member_id] = entry
    return list(newest.values())
