"""The sweep: every few seconds a broker of several looks for what no signal told of.

It finds deliveries committed by other brokers, members revoked elsewhere, a database that was restored or
failed over, and the findings of the steps that other parts add. `Limits.sweep_s` bounds how long a lost
signal stays unnoticed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from claudemesh.broker.cluster.failover import may_have_gone_back
from claudemesh.broker.cluster.signals import Signals
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.environment import Environment
from claudemesh.broker.state import BrokerState
from claudemesh.broker.store.protocol import ClusterStore
from claudemesh.broker.store.types import Life
from claudemesh.protocol.errors import CloseCode
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import OffsetClock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner, repeat, supervise

log = get_logger("broker.cluster")

Step: TypeAlias = Callable[[], Awaitable[None]]

# The database has given up an accept that takes longer.
_LATEST_COMMIT_S = 30.0
_BACKOFF = Backoff(initial_s=0.2, cap_s=5)


class Sweep:
    """Looks at the shared database at the start and then in an interval. Without a store it does nothing.

    `wall` follows the clock of the database's server. `steps` are run in their order, each time.
    """

    def __init__(
        self,
        store: ClusterStore | None,
        *,
        hub: Hub,
        signals: Signals,
        state: BrokerState,
        wall: OffsetClock,
        env: Environment,
        steps: Sequence[Step],
    ) -> None:
        self._store = store
        self._hub = hub
        self._signals = signals
        self._state = state
        self._wall = wall
        self._env = env
        self._steps = steps
        self._newest: deque[tuple[float, int]] = deque()
        self._life: Life | None = None
        self._comparing = asyncio.Lock()
        self._tasks = TaskOwner(env.on_crash)

    async def start(self) -> None:
        """Sweep, then listen for signals and go on sweeping. Raises `StorageError`."""
        store = self._store
        if store is None:
            return
        await self._sweep(store)
        self._signals.start(self._hub.refresh)
        sweeping = repeat(
            lambda: self._sweep(store), self._env.limits.sweep_s, "sweep", _BACKOFF, self._env.degraded
        )
        self._tasks.start(sweeping, "cluster_sweep")
        watching = supervise(lambda worked: self._watch(store, worked), "sweep", _BACKOFF, self._env.degraded)
        self._tasks.start(watching, "server_watch")

    async def stop(self) -> None:
        """Send the signals that wait, and end."""
        await self._signals.stop()
        await self._tasks.stop()

    async def _sweep(self, store: ClusterStore) -> None:
        self._wall.follow(await store.now_ms())
        await self._compare_epoch(store)
        for step in self._steps:
            await step()
        self._signals.note_company(present=await store.has_company(self._env.broker_id))
        here = {connection.member_id: connection.mesh_id for connection in self._hub}
        await self._find_deliveries(store, here)
        for member_id in await store.inactive(list(here)):
            self._hub.disconnect(
                here[member_id], member_id, CloseCode.REVOKED, "this member is no longer active"
            )

    async def _watch(self, store: ClusterStore, worked: Callable[[], None]) -> None:
        """Compare as soon as a send has met another server: until then nothing is accepted."""
        while True:
            await store.exchanged()
            await self._compare_epoch(store)
            worked()

    async def _compare_epoch(self, store: ClusterStore) -> None:
        """Close every connection when the database may hold older data: daemons ask as they come back.

        Only then sends are accepted by the server that was found.
        """
        async with self._comparing:
            accepted = self._state.newest_history
            store_epoch, life = await store.store_epoch(), await store.life()
            before, self._life = self._life, life
            if store_epoch != self._state.store_epoch or may_have_gone_back(before, life, accepted):
                self._close_all(store_epoch)
            store.accept_from(life)

    def _close_all(self, store_epoch: str) -> None:
        log.info("database_may_be_another", epoch_changed=store_epoch != self._state.store_epoch)
        self._state.store_epoch, self._state.newest_history = store_epoch, 0
        self._newest.clear()
        for connection in self._hub:
            connection.close(CloseCode.DRAINING, "The database was replaced. Connect again.")

    async def _find_deliveries(self, store: ClusterStore, here: Mapping[str, str]) -> None:
        """Refresh connections with deliveries that no signal told of.

        Delivery ids are given out in order and committed in any. So the search begins at the newest id of a
        sweep that lies further back than a commit can take.
        """
        now = self._env.clock.monotonic()
        while len(self._newest) > 1 and now - self._newest[1][0] > _LATEST_COMMIT_S:
            self._newest.popleft()
        after = self._newest[0][1] if self._newest else None
        newest, rows = await store.deliveries_since(after, list(here))
        self._newest.append((now, newest))
        for delivery_id, member_id in rows:
            for connection in self._hub.of_member(here[member_id], member_id):
                if connection.is_open and not connection.knows(delivery_id):
                    self._env.metrics.wakeups_missed.inc()
                    connection.refresh()
