"""Work queues, on a real store: turns, the bound of what a consumer holds, and what goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from claudemesh.broker.cluster.signals import Signals
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.messages.work_queues import HELD, WorkQueues
from claudemesh.broker.store.types import Ack, Member
from claudemesh.runtime.batching import Batcher
from tests.support.environment import environment
from tests.support.stores import NOW, World, world
from tests.support.waiting import WAIT_S
from tests.unit.broker.connections.test_hub import Recorder


@dataclass
class Bench:
    """The work queues of an embedded broker, with consumers that only remember their deliveries."""

    world: World
    hub: Hub = field(default_factory=lambda: Hub(16))

    def __post_init__(self) -> None:
        env = environment()

        async def acknowledge(acks: Sequence[Ack]) -> Sequence[None]:
            await self.world.store.messages.acknowledge(acks)
            return [None] * len(acks)

        self.acks: Batcher[Ack, None] = Batcher(acknowledge)
        self.queues = WorkQueues(self.world.store.queues, self.hub, self.acks, Signals(None, env), env)

    async def consumer(self, name: str) -> tuple[Member, Recorder]:
        """A member that subscribes to `jobs` and connects."""
        member, mesh_id = await self.world.join(name), self.world.mesh.id
        await self.world.store.topics.subscribe(mesh_id, "jobs", member.id, NOW)
        connection = Recorder(member.id, mesh_id=mesh_id)
        self.hub.admit(connection, "prefer_newest")  # type: ignore[arg-type]
        self.queues.refresh_member(mesh_id, member.id)
        return member, connection

    async def put(self, count: int) -> None:
        """Accept sends to `jobs` and dispatch them."""
        sends = [self.world.to_queue(self.world.owner, "jobs") for _ in range(count)]
        await self.world.store.messages.accept(sends, NOW)
        self.queues.dispatch(self.world.mesh.id, "jobs")

    def leave(self, connection: Recorder) -> None:
        """A consumer's connection ends."""
        self.hub.leave(connection)  # type: ignore[arg-type]
        self.queues.leave(connection.mesh_id, connection.member_id, "connection")

    async def settle(self) -> None:
        """Let the queues do all that they have begun."""
        await self.queues._tasks.join()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the queues work until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - a consumer has no event for a delivery
                await asyncio.sleep(0.005)


@asynccontextmanager
async def bench() -> AsyncGenerator[Bench]:
    """Work queues over a store with the queue `jobs`."""
    async with world("sqlite") as made:
        await made.store.topics.create(made.mesh.id, "jobs", "queue", made.owner.id, NOW)
        found = Bench(made)
        yield found
        await found.queues.stop()
        await found.acks.close()


async def waiting(b: Bench) -> int:
    """Return how many deliveries are not acknowledged yet."""
    return await b.world.store.messages.deliveries_pending()


async def test_consumers_are_served_in_turn() -> None:
    async with bench() as b:
        (_, one), (_, two) = await b.consumer("bob"), await b.consumer("cleo")
        await b.until(lambda: len(b.queues._consumers.get((b.world.mesh.id, "jobs"), ())) == 2)
        await b.put(4)
        await b.until(lambda: len(one.pushed) + len(two.pushed) == 4)
        assert (len(one.pushed), len(two.pushed)) == (2, 2)


async def test_a_consumer_holds_a_bounded_number_and_gets_more_for_acknowledgements() -> None:
    async with bench() as b:
        member, one = await b.consumer("bob")
        await b.put(HELD + 3)
        await b.until(lambda: len(one.pushed) == HELD)
        b.queues.acknowledged(b.world.mesh.id, member.id, one.pushed[:2])
        await b.until(lambda: len(one.pushed) == HELD + 2)
        # Ids of other deliveries make no room.
        b.queues.acknowledged(b.world.mesh.id, member.id, [10**9])
        await b.settle()
        assert len(one.pushed) == HELD + 2
        assert await waiting(b) == HELD + 3


async def test_messages_of_a_consumer_that_leaves_go_to_another() -> None:
    async with bench() as b:
        _, one = await b.consumer("bob")
        await b.put(3)
        await b.until(lambda: len(one.pushed) == 3)
        _, two = await b.consumer("cleo")
        b.leave(one)
        await b.until(lambda: sorted(two.pushed) == sorted(one.pushed))


async def test_messages_without_a_consumer_wait_for_one() -> None:
    async with bench() as b:
        await b.put(2)
        assert await waiting(b) == 2
        _, one = await b.consumer("bob")
        await b.until(lambda: len(one.pushed) == 2)


async def test_a_sweep_finds_messages_of_consumers_that_are_gone() -> None:
    async with bench() as b:
        lost = await b.world.join("bob")
        store, mesh_id = b.world.store, b.world.mesh.id
        await store.topics.subscribe(mesh_id, "jobs", lost.id, NOW)
        await store.messages.accept([b.world.to_queue(b.world.owner, "jobs")], NOW)
        assert len(await store.queues.take(mesh_id, "jobs", [lost.id], 8)) == 1
        _, one = await b.consumer("cleo")
        await b.queues.sweep()
        await b.until(lambda: len(one.pushed) == 1)


async def test_nothing_is_dispatched_while_paused() -> None:
    async with bench() as b:
        _, one = await b.consumer("bob")
        await b.until(lambda: (b.world.mesh.id, "jobs") in b.queues._consumers)
        b.queues.pause()
        await b.put(1)
        await b.settle()
        assert one.pushed == []
        assert await waiting(b) == 1


async def test_a_store_that_fails_is_asked_until_it_answers(monkeypatch: Any) -> None:
    async with bench() as b:
        store: Any = b.world.store.queues
        real, failures = store.subscriptions, [OSError("away")]

        async def failing(*values: Any) -> Any:
            if failures:
                raise failures.pop()
            return await real(*values)

        monkeypatch.setattr(store, "subscriptions", failing)
        _, one = await b.consumer("bob")
        await b.put(1)
        await b.until(lambda: len(one.pushed) == 1)
        assert failures == []
