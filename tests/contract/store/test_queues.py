"""Work queues, on both stores: each message to one subscriber at a time (docs/spec/broker.md, Delivering)."""

from __future__ import annotations

import pytest

from claudemesh.broker.store.types import Accepted, Ack, Refused
from tests.support.stores import ENGINES, NOW, World, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))
MINUTE = 60_000


async def jobs(w: World, *names: str) -> list[str]:
    """A queue `jobs` with these members as its subscribers; returns their ids."""
    await w.store.topics.create(w.mesh.id, "jobs", "queue", w.owner.id, NOW)
    members = [await w.join(name) for name in names]
    for one in members:
        assert await w.store.topics.subscribe(w.mesh.id, "jobs", one.id, NOW)
    return [one.id for one in members]


async def put(w: World, count: int, **changes: object) -> list[str]:
    """Send so many messages to the queue; returns their ids in order."""
    sends = [w.to_queue(w.owner, "jobs", **changes) for _ in range(count)]
    outcomes = await w.store.messages.accept(sends, NOW)
    assert all(isinstance(outcome, Accepted) and not outcome.deliveries for outcome in outcomes)
    return [send.broker_message_id for send in sends]


async def test_a_message_waits_for_a_subscriber_and_is_owed_to_nobody(engine: str) -> None:
    """Accepted without a subscriber; no member's deliveries include it until it is assigned."""
    async with world(engine) as w:
        [bob] = await jobs(w, "bob")
        [message] = await put(w, 1)
        assert await w.store.messages.deliveries_due(w.mesh.id, bob, exclude=(), limit=10) == []
        [(taker, row)] = await w.store.queues.take(w.mesh.id, "jobs", [bob], 8)
        assert (taker, row.broker_message_id) == (bob, message)
        assert await w.store.messages.deliveries_due(w.mesh.id, bob, exclude=(), limit=10) == [row]
        assert await w.store.messages.acknowledge([Ack(w.mesh.id, bob, (row.delivery_id,))]) == 1
        assert await w.store.messages.deliveries_pending() == 0


async def test_messages_are_given_in_turn_and_each_once(engine: str) -> None:
    """Oldest first within a priority; of two takers each gets half; nothing is given twice."""
    async with world(engine) as w:
        bob, cleo = await jobs(w, "bob", "cleo")
        low, messages = await put(w, 1, priority=2), await put(w, 6)
        first = await w.store.queues.take(w.mesh.id, "jobs", [bob, cleo], 4)
        assert [taker for taker, _ in first] == [bob, cleo, bob, cleo]
        second = await w.store.queues.take(w.mesh.id, "jobs", [cleo, bob], 4)
        given = [row.broker_message_id for _, row in (*first, *second)]
        assert given == [*messages, *low]
        assert await w.store.queues.take(w.mesh.id, "jobs", [bob], 4) == []


async def test_only_active_subscribers_are_given_anything(engine: str) -> None:
    """A member that has unsubscribed or was revoked since is skipped."""
    async with world(engine) as w:
        bob, cleo, dora = await jobs(w, "bob", "cleo", "dora")
        await put(w, 3)
        await w.store.topics.unsubscribe(w.mesh.id, "jobs", bob)
        await w.store.members.set_status(w.mesh.id, cleo, "revoked")
        rows = await w.store.queues.take(w.mesh.id, "jobs", [bob, cleo, dora, w.owner.id], 8)
        assert [taker for taker, _ in rows] == [dora] * 3
        assert await w.store.queues.take(w.mesh.id, "jobs", [bob, cleo], 8) == []


async def test_what_a_member_holds_goes_back_when_it_leaves(engine: str) -> None:
    """And to another, with the same id; what it acknowledged does not come back."""
    async with world(engine) as w:
        bob, cleo = await jobs(w, "bob", "cleo")
        await put(w, 2)
        (_, done), (_, held) = await w.store.queues.take(w.mesh.id, "jobs", [bob], 8)
        await w.store.messages.acknowledge([Ack(w.mesh.id, bob, (done.delivery_id,))])
        assert set(await w.store.queues.release(w.mesh.id, bob, "c1", NOW)) == {"jobs"}
        [(taker, again)] = await w.store.queues.take(w.mesh.id, "jobs", [cleo], 8)
        assert (taker, again.broker_message_id) == (cleo, held.broker_message_id)
        # An ack that comes too late has no effect.
        assert await w.store.messages.acknowledge([Ack(w.mesh.id, bob, (held.delivery_id,))]) == 0


async def test_what_members_hold_that_are_nowhere_is_taken_back(engine: str) -> None:
    """A broker that died gave nothing back; a lease says who is still there."""
    async with world(engine) as w:
        bob, cleo = await jobs(w, "bob", "cleo")
        await put(w, 2)
        await w.store.queues.take(w.mesh.id, "jobs", [bob, cleo], 2)
        await w.store.presence.open([w.lease(cleo, until=NOW + MINUTE)])
        assert set(await w.store.queues.release_lost(NOW)) == {(w.mesh.id, "jobs")}
        assert len(await w.store.messages.deliveries_due(w.mesh.id, cleo, exclude=(), limit=10)) == 1
        assert await w.store.messages.deliveries_due(w.mesh.id, bob, exclude=(), limit=10) == []
        assert set(await w.store.queues.release_lost(NOW)) == set()


async def test_a_dm_or_a_post_never_goes_back(engine: str) -> None:
    """Releasing touches the rows of queues only."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.messages.accept([w.dm(w.owner, bob), w.post(w.owner, "all")], NOW)
        assert set(await w.store.queues.release(w.mesh.id, bob.id, "c1", NOW)) == set()
        assert set(await w.store.queues.release_lost(NOW)) == set()
        assert len(await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=10)) == 2


async def test_subscriptions_name_queues_and_no_topics(engine: str) -> None:
    """`all` is a topic."""
    async with world(engine) as w:
        [bob] = await jobs(w, "bob")
        assert list(await w.store.queues.subscriptions(w.mesh.id, bob)) == ["jobs"]
        assert list(await w.store.queues.subscriptions(w.mesh.id, w.owner.id)) == []


async def test_a_queue_is_no_topic_and_a_topic_no_queue(engine: str) -> None:
    """A send to the one under the kind of the other finds nothing, and writes nothing."""
    async with world(engine) as w:
        await jobs(w)
        outcomes = await w.store.messages.accept([w.to_queue(w.owner, "all"), w.post(w.owner, "jobs")], NOW)
        assert outcomes == [Refused("destination_not_found")] * 2
        assert await w.store.messages.deliveries_pending() == 0


async def test_queues_with_waiting_messages_are_found_among_many(engine: str) -> None:
    """Not those that are empty, whose messages are given, of another mesh, or that are not asked for."""
    async with world(engine) as w:
        [bob] = await jobs(w, "bob")
        for name in ("given", "empty", "other"):
            await w.store.topics.create(w.mesh.id, name, "queue", w.owner.id, NOW)
        await put(w, 2)
        await put(w, 1, destination_ref="other")
        await put(w, 1, destination_ref="given")
        assert await w.store.topics.subscribe(w.mesh.id, "given", bob, NOW)
        assert len(await w.store.queues.take(w.mesh.id, "given", [bob], 8)) == 1
        asked = ["jobs", "given", "empty", "nowhere"]
        assert list(await w.store.queues.waiting(w.mesh.id, asked)) == ["jobs"]
        assert list(await w.store.queues.waiting(w.owner.id, asked)) == []
        assert list(await w.store.queues.waiting(w.mesh.id, [])) == []
