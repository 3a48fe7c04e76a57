"""Presence: the clone policy as a decision, and leases kept in the store in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.facets import PresenceStore
from claudemesh.broker.store.types import PresenceRow, Seen
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import OnCrash, TaskOwner, repeat

_RENEWALS_PER_LEASE = 3
# How coarse the last-seen time is of a member whose connection has no end: that of a broker that died.
_SEEN_EVERY_S = 300.0
_BACKOFF = Backoff(initial_s=0.5, cap_s=5)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection came: its lease, and when and on which host the member was seen."""

    row: PresenceRow
    seen: Seen


@dataclass(frozen=True, slots=True)
class Departure:
    """A connection went; `seen` is None when it was never open."""

    connection_id: str
    seen: Seen | None


class Presence:
    """Keeps leases and last-seen times in the store, behind the connections' backs and in order.

    Leases go by the lived clock; last-seen times are wall time, for showing. They are written when a
    connection comes and goes, and every few minutes in between. Changes that come together share a commit.
    At most 8192 changes wait; more are dropped and counted, and the lease's end mends the picture.
    """

    def __init__(
        self,
        store: PresenceStore,
        clock: Clock,
        lived: LivedClock,
        degraded: Degraded,
        limits: Limits,
        broker_id: str,
        on_crash: OnCrash,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lived = lived
        self._degraded = degraded
        self._limits = limits
        self._broker_id = broker_id
        self._batcher: Batcher[Arrival | Departure, None] = Batcher(self._commit)
        self._tasks = TaskOwner(on_crash)
        self._seen_at = clock.monotonic()

    async def start(self) -> None:
        """Forget what an earlier run of this broker left behind, and begin renewing."""
        await self._store.clear(self._broker_id)
        every_s = self._limits.lease_s / _RENEWALS_PER_LEASE
        renewing = repeat(self._renew, every_s, "presence_renewal", _BACKOFF, self._degraded)
        self._tasks.start(renewing, "presence_renew")

    async def stop(self) -> None:
        """Write what waits and end."""
        await self._tasks.stop()
        await self._batcher.close()

    def arrived(
        self,
        connection_id: str,
        mesh_id: str,
        member_id: str,
        host: bytes | None,
        *,
        instance_id: str = "",
    ) -> None:
        """Note a connection that was admitted."""
        now_ms = self._lived.now_ms()
        row = PresenceRow(
            connection_id,
            member_id,
            mesh_id,
            self._broker_id,
            now_ms,
            self._lease_until(now_ms),
            instance_id,
        )
        self._submit(Arrival(row, Seen(mesh_id, member_id, self._clock.wall_ms(), host)))

    def departed(self, connection_id: str, mesh_id: str, member_id: str, *, was_open: bool) -> None:
        """Note that a connection is gone, or that one that had taken a lease was never open."""
        seen = Seen(mesh_id, member_id, self._clock.wall_ms(), None) if was_open else None
        self._submit(Departure(connection_id, seen))

    def _lease_until(self, now_ms: int) -> int:
        return now_ms + round(self._limits.lease_s * 1000)

    def _submit(self, change: Arrival | Departure) -> None:
        try:
            self._batcher.submit(change).add_done_callback(self._written)
        except Overloaded as error:
            self._degraded.failed("presence", error)

    def _written(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._degraded.failed("presence", error)

    async def _commit(self, changes: Sequence[Arrival | Departure]) -> Sequence[None]:
        gone = {change.connection_id for change in changes if isinstance(change, Departure)}
        came = [change.row for change in changes if isinstance(change, Arrival)]
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
        await self._store.renew(self._broker_id, self._lease_until(self._lived.now_ms()))
        now = self._clock.monotonic()
        if now - self._seen_at >= _SEEN_EVERY_S:
            await self._store.present_seen(self._broker_id, self._clock.wall_ms())
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
