"""Work queues: each message goes to one subscriber (docs/spec/broker.md, Work queues).

A message waits in the database without a recipient until a broker dispatches it to a subscriber that is
connected there and has room. From then on it is a delivery like any other. When a consumer leaves, what it
has not acknowledged is released: it waits again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from claudemesh.broker.cluster.signals import Signal, Signals
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.open_connection import OpenConnection
from claudemesh.broker.environment import Environment
from claudemesh.broker.messages.delivery import push_of
from claudemesh.broker.store.facets import QueueStore
from claudemesh.broker.store.types import Ack
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.services import TaskOwner

# Unacknowledged queue messages that a consumer may hold; more would wait there while another one is idle.
HELD = 16
# Messages that a consumer is given at a time, so that several brokers take turns.
_PER_DISPATCH = 8
# Queues that are looked at in one query.
_LOOKED_AT = 512

# Bound of the last releases when the broker stops.
_STOP_S = 2.0

Key: TypeAlias = tuple[str, str]


class WorkQueues:
    """Dispatches queue messages to the consumers that are connected to this broker, in turn."""

    def __init__(
        self, store: QueueStore, hub: Hub, acks: Batcher[Ack, None], signals: Signals, env: Environment
    ) -> None:
        self._store = store
        self._hub = hub
        self._acks = acks
        self._signals = signals
        self._env = env
        # Subscribed members that are connected here, by queue: the one served longest ago comes first.
        self._consumers: dict[Key, list[str]] = {}
        self._held: dict[int, str] = {}
        self._load: dict[str, int] = {}
        self._dispatching: set[Key] = set()
        self._again: set[Key] = set()
        # Members whose subscriptions are being read.
        self._refreshing: set[str] = set()
        self._paused = False
        self._tasks = TaskOwner()
        signals.subscribe("queue", self._on_queue)
        signals.subscribe("queue_gone", self._on_gone)

    async def start(self) -> None:
        """Release the messages of members without a lease."""
        await self.sweep()

    def pause(self) -> None:
        """Dispatch nothing more. Consumers keep what they have until they acknowledge it or leave."""
        self._paused = True

    async def stop(self) -> None:
        """Wait a moment for releases that are under way, and end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._tasks.join()
        await self._tasks.stop()

    # Queues.

    def dispatch(self, mesh_id: str, queue: str, *, is_local: bool = False) -> None:
        """Dispatch waiting messages of a queue, if there are any, in the background.

        Without a consumer that has room the other brokers are signalled, unless `is_local`.
        """
        key = (mesh_id, queue)
        if self._paused or not self._ready(key):
            if not is_local:
                self._signals.publish_queue(mesh_id, queue)
        elif key in self._dispatching:
            self._again.add(key)
        else:
            self._dispatching.add(key)
            self._tasks.start(self._run(key), "queue")

    def _on_queue(self, signal: Signal) -> None:
        self.dispatch(signal["mesh"], signal["queue"], is_local=True)

    def queue_gone(self, mesh_id: str, queue: str) -> None:
        """Note that a topic or queue was deleted: a later one of its name begins without consumers."""
        self._consumers.pop((mesh_id, queue), None)
        self._signals.publish("queue_gone", mesh=mesh_id, queue=queue)

    def _on_gone(self, signal: Signal) -> None:
        self._consumers.pop((signal["mesh"], signal["queue"]), None)

    async def sweep(self) -> None:
        """Release the messages of members without a lease, and dispatch every queue with consumers here."""
        for mesh_id, queue in await self._store.release_lost(self._env.lived.now_ms()):
            self.dispatch(mesh_id, queue)
        queues: dict[str, list[str]] = {}
        for mesh_id, queue in self._consumers:
            queues.setdefault(mesh_id, []).append(queue)
        for mesh_id, names in queues.items():
            for queue in await self._waiting(mesh_id, names):
                self.dispatch(mesh_id, queue, is_local=True)

    # Members.

    def refresh_member(self, mesh_id: str, member_id: str) -> None:
        """Read the subscriptions of a member that has connected, subscribed or unsubscribed."""
        self._refreshing.add(member_id)
        self._tasks.start(self._refresh(mesh_id, member_id), "queue_refresh")

    def acknowledged(self, mesh_id: str, member_id: str, delivery_ids: Iterable[int]) -> None:
        """Note acknowledged deliveries. Those of queues make room for more."""
        was_full = False
        for delivery_id in delivery_ids:
            if self._held.pop(delivery_id, None) is not None:
                was_full |= self._load[member_id] >= HELD
                self._load[member_id] -= 1
        # Queues of a consumer that had room were dispatched until they were empty.
        if was_full:
            queues = [queue for _, queue in self._of(mesh_id, member_id)]
            self._tasks.start(self._dispatch_waiting(mesh_id, queues), "queue_room")

    def leave(self, mesh_id: str, member_id: str, connection_id: str) -> None:
        """Note that a connection has ended. With the member's last one here its messages are released."""
        keys = self._of(mesh_id, member_id)
        if self._hub.of_member(mesh_id, member_id) or not (keys or member_id in self._refreshing):
            return
        self._forget(member_id, keys)
        for delivery_id in [number for number, holder in self._held.items() if holder == member_id]:
            del self._held[delivery_id]
        self._load.pop(member_id, None)
        self._tasks.start(self._release(mesh_id, member_id, connection_id), "queue_leave")

    async def _refresh(self, mesh_id: str, member_id: str) -> None:
        queues = await self._retry_until_answered(lambda: self._store.subscriptions(mesh_id, member_id))
        self._refreshing.discard(member_id)
        before = {queue for _, queue in self._of(mesh_id, member_id)}
        wanted = set(queues) if self._hub.of_member(mesh_id, member_id) else set()
        self._forget(member_id, [(mesh_id, queue) for queue in before - wanted])
        added = sorted(wanted - before)
        for queue in added:
            self._consumers.setdefault((mesh_id, queue), []).append(member_id)
        await self._dispatch_waiting(mesh_id, added)

    async def _release(self, mesh_id: str, member_id: str, connection_id: str) -> None:
        try:
            # Wait for acknowledgements that came before: what they cover must not be released.
            await self._acks.submit(Ack(mesh_id, member_id, ()))
        except Exception as error:
            self._env.degraded.failed("queue", error)
        for queue in await self._retry_until_answered(
            lambda: self._release_unless_back(mesh_id, member_id, connection_id)
        ):
            self.dispatch(mesh_id, queue)

    async def _release_unless_back(self, mesh_id: str, member_id: str, connection_id: str) -> Collection[str]:
        """Release a member's messages, unless it is connected again and is sent them once more."""
        connections = self._hub.of_member(mesh_id, member_id)
        if not connections:
            return await self._store.release(mesh_id, member_id, connection_id, self._env.lived.now_ms())
        for connection in connections:
            if connection.is_open:
                connection.refresh()
        return ()

    async def _retry_until_answered(self, ask: Callable[[], Awaitable[Collection[str]]]) -> Collection[str]:
        """Ask until the store answers: a consumer that was missed would starve, or keep its messages."""
        while True:
            try:
                return await ask()
            except Exception as error:
                self._env.degraded.failed("queue", error)
                await asyncio.sleep(self._env.limits.retry_s)

    # Dispatching.

    async def _run(self, key: Key) -> None:
        try:
            while True:
                self._again.discard(key)
                if not await self._dispatch_once(key) and key not in self._again:
                    return
        except Exception as error:
            self._env.degraded.failed("queue", error)
            self._tasks.start(self._dispatch_later(key), "queue_retry")
        finally:
            self._dispatching.discard(key)

    async def _dispatch_waiting(self, mesh_id: str, queues: Sequence[str]) -> None:
        for queue in await self._retry_until_answered(partial(self._waiting, mesh_id, queues)):
            self.dispatch(mesh_id, queue, is_local=True)

    async def _waiting(self, mesh_id: str, queues: Sequence[str]) -> Collection[str]:
        """Return those of some queues that have messages: a member may be subscribed to thousands."""
        found: list[str] = []
        for start in range(0, len(queues), _LOOKED_AT):
            found += await self._store.waiting(mesh_id, queues[start : start + _LOOKED_AT])
        return found

    async def _dispatch_once(self, key: Key) -> bool:
        """Give each consumer with room its share; returns whether more messages may wait."""
        mesh_id, queue = key
        ready = [] if self._paused else self._ready(key)
        if not ready:
            # A consumer at another broker may have room.
            self._signals.publish_queue(mesh_id, queue)
            return False
        room = min(_PER_DISPATCH, *(HELD - self._load.get(member_id, 0) for member_id in ready))
        rows = await self._store.take(mesh_id, queue, ready, room * len(ready))
        gone = set()
        for member_id, row in rows:
            connection = self._connection(mesh_id, member_id)
            if connection is None:
                gone.add(member_id)
                continue
            self._held[row.delivery_id] = member_id
            self._load[member_id] = self._load.get(member_id, 0) + 1
            connection.push(push_of(row))
        self._rotate(key, len(rows))
        for member_id in gone - set(self._consumers.get(key, ())):
            # The member left during the call of the store. One that is still leaving releases these messages
            # with its others, behind acknowledgements that are not read yet.
            self._tasks.start(self._release(mesh_id, member_id, ""), "queue_leave")
        return len(rows) == room * len(ready)

    def _ready(self, key: Key) -> list[str]:
        return [
            member_id
            for member_id in self._consumers.get(key, ())
            if self._load.get(member_id, 0) < HELD and self._connection(key[0], member_id) is not None
        ]

    def _connection(self, mesh_id: str, member_id: str) -> OpenConnection | None:
        return next(
            (connection for connection in self._hub.of_member(mesh_id, member_id) if connection.is_open), None
        )

    def _rotate(self, key: Key, count: int) -> None:
        consumers = self._consumers.get(key)
        if consumers:
            count %= len(consumers)
            consumers[:] = [*consumers[count:], *consumers[:count]]

    def _of(self, mesh_id: str, member_id: str) -> list[Key]:
        return [
            key for key, consumers in self._consumers.items() if key[0] == mesh_id and member_id in consumers
        ]

    def _forget(self, member_id: str, keys: Sequence[Key]) -> None:
        for key in keys:
            self._consumers[key].remove(member_id)
            if not self._consumers[key]:
                del self._consumers[key]

    async def _dispatch_later(self, key: Key) -> None:
        await asyncio.sleep(self._env.limits.retry_s)
        self.dispatch(*key)
