"""Work queues: each message to one subscriber at a time (docs/spec/broker.md, Delivering).

A message waits in the database without a recipient until a broker gives it to a subscriber that is connected
there and has room; from then on it is a delivery like any other. A subscriber that leaves gives back what
it has not acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.link import Link
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.messages.delivery import push_of
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.facets import QueueStore
from claudemesh.broker.store.types import Ack
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import TaskOwner

# How many unacknowledged queue messages a member holds; more would wait with it and not with an idle one.
HELD = 16
# How many of these it is given at a time, so that several brokers take turns.
_AT_ONCE = 8

_LAST_S = 2.0

Key: TypeAlias = tuple[str, str]


class Queues:
    """Hands queue messages to the members that are connected to this broker, in turn."""

    def __init__(
        self,
        store: QueueStore,
        hub: Hub,
        acks: Batcher[Ack, None],
        lived: LivedClock,
        degraded: Degraded,
        limits: Limits,
        tell_others: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._hub = hub
        self._acks = acks
        self._lived = lived
        self._degraded = degraded
        self._limits = limits
        self._tell_others = tell_others
        # Members that take from a queue here, the least recently served first.
        self._takers: dict[Key, list[str]] = {}
        self._held: dict[int, str] = {}
        self._load: dict[str, int] = {}
        self._serving: set[Key] = set()
        self._again: set[Key] = set()
        # Members whose subscriptions are being read.
        self._arriving: set[str] = set()
        self._paused = False
        self._tasks = TaskOwner()

    async def start(self) -> None:
        """Take back what members hold that are connected nowhere."""
        await self.sweep()

    def pause(self) -> None:
        """Hand out nothing more: what members have is theirs until they acknowledge it or leave."""
        self._paused = True

    async def stop(self) -> None:
        """Let what members have left behind go back, then hand out nothing more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await self._tasks.join()
        await self._tasks.stop()

    # What happens to queues.

    def kick(self, mesh_id: str, queue: str, *, told: bool = False) -> None:
        """There may be something to hand out. `told`: by another broker, which need not hear it back."""
        key = (mesh_id, queue)
        if self._paused or not self._ready(key):
            if not told:
                self._tell_others(mesh_id, queue)
        elif key in self._serving:
            self._again.add(key)
        else:
            self._serving.add(key)
            self._tasks.start(self._serve(key), "queue")

    async def sweep(self) -> None:
        """Take back what members hold that are connected nowhere, and look at every queue taken from here."""
        for mesh_id, queue in await self._store.release_lost(self._lived.now_ms()):
            self.kick(mesh_id, queue)
        for mesh_id, queue in list(self._takers):
            self.kick(mesh_id, queue, told=True)

    # What happens to members.

    def subscribe(self, mesh_id: str, member_id: str) -> None:
        """A member has come, or takes from other queues than before."""
        self._arriving.add(member_id)
        self._tasks.start(self._subscribe(mesh_id, member_id), "queue_subscribe")

    def acknowledged(self, mesh_id: str, member_id: str, delivery_ids: Iterable[int]) -> None:
        """A member has acknowledged deliveries; if they were of queues, it has room for others."""
        freed = False
        for delivery_id in delivery_ids:
            if self._held.pop(delivery_id, None) is not None:
                self._load[member_id] -= 1
                freed = True
        if freed:
            for key in self._of(mesh_id, member_id):
                self.kick(*key, told=True)

    def leave(self, mesh_id: str, member_id: str, connection_id: str) -> None:
        """A connection has gone: with the member's last one here, what it holds goes back."""
        keys = self._of(mesh_id, member_id)
        if self._hub.links(mesh_id, member_id) or not (keys or member_id in self._arriving):
            return
        self._forget(member_id, keys)
        for delivery_id in [number for number, holder in self._held.items() if holder == member_id]:
            del self._held[delivery_id]
        self._load.pop(member_id, None)
        self._tasks.start(self._give_back(mesh_id, member_id, connection_id), "queue_leave")

    async def _subscribe(self, mesh_id: str, member_id: str) -> None:
        queues = await self._surely(lambda: self._store.subscriptions(mesh_id, member_id))
        self._arriving.discard(member_id)
        self._forget(member_id, self._of(mesh_id, member_id))
        if not self._hub.links(mesh_id, member_id):
            return
        for queue in queues:
            self._takers.setdefault((mesh_id, queue), []).append(member_id)
            self.kick(mesh_id, queue, told=True)

    async def _give_back(self, mesh_id: str, member_id: str, connection_id: str) -> None:
        try:
            # Behind the acknowledgements that came before: what they say is done is not given to another.
            await self._acks.submit(Ack(mesh_id, member_id, ()))
        except Exception as error:
            self._degraded.failed("queue", error)
        for queue in await self._surely(lambda: self._release(mesh_id, member_id, connection_id)):
            self.kick(mesh_id, queue)

    async def _release(self, mesh_id: str, member_id: str, connection_id: str) -> Collection[str]:
        """Take back what a member holds, unless it is here again: its new connection gets it once more."""
        links = self._hub.links(mesh_id, member_id)
        if not links:
            return await self._store.release(mesh_id, member_id, connection_id, self._lived.now_ms())
        for link in links:
            if link.is_open:
                link.refresh()
        return ()

    async def _surely(self, ask: Callable[[], Awaitable[Collection[str]]]) -> Collection[str]:
        """Ask until the store answers: a member that was missed would never be served, or hold for ever."""
        while True:
            try:
                return await ask()
            except Exception as error:
                self._degraded.failed("queue", error)
                await asyncio.sleep(self._limits.retry_s)

    # Handing out.

    async def _serve(self, key: Key) -> None:
        try:
            while True:
                self._again.discard(key)
                if not await self._hand_out(key) and key not in self._again:
                    return
        except Exception as error:
            self._degraded.failed("queue", error)
            self._tasks.start(self._kick_later(key), "queue_retry")
        finally:
            self._serving.discard(key)

    async def _hand_out(self, key: Key) -> bool:
        """Give each member that has room its share; returns whether there may be more to give."""
        mesh_id, queue = key
        ready = [] if self._paused else self._ready(key)
        if not ready:
            # A member at another broker may have room.
            self._tell_others(mesh_id, queue)
            return False
        room = min(_AT_ONCE, *(HELD - self._load.get(member_id, 0) for member_id in ready))
        rows = await self._store.take(mesh_id, queue, ready, room * len(ready))
        gone = set()
        for member_id, row in rows:
            link = self._link(mesh_id, member_id)
            if link is None:
                gone.add(member_id)
                continue
            self._held[row.delivery_id] = member_id
            self._load[member_id] = self._load.get(member_id, 0) + 1
            link.push(push_of(row))
        self._rotate(key, len(rows))
        for member_id in gone - set(self._takers.get(key, ())):
            # It left while the database was giving it something. One that is still leaving gives it back with
            # the rest, behind acknowledgements that are not read yet.
            self._tasks.start(self._give_back(mesh_id, member_id, ""), "queue_leave")
        return len(rows) == room * len(ready)

    def _ready(self, key: Key) -> list[str]:
        return [
            member_id
            for member_id in self._takers.get(key, ())
            if self._load.get(member_id, 0) < HELD and self._link(key[0], member_id) is not None
        ]

    def _link(self, mesh_id: str, member_id: str) -> Link | None:
        return next((link for link in self._hub.links(mesh_id, member_id) if link.is_open), None)

    def _rotate(self, key: Key, count: int) -> None:
        takers = self._takers.get(key)
        if takers:
            count %= len(takers)
            takers[:] = [*takers[count:], *takers[:count]]

    def _of(self, mesh_id: str, member_id: str) -> list[Key]:
        return [key for key, takers in self._takers.items() if key[0] == mesh_id and member_id in takers]

    def _forget(self, member_id: str, keys: Sequence[Key]) -> None:
        for key in keys:
            self._takers[key].remove(member_id)
            if not self._takers[key]:
                del self._takers[key]

    async def _kick_later(self, key: Key) -> None:
        await asyncio.sleep(self._limits.retry_s)
        self.kick(*key)
