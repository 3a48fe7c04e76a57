"""Deletion of topics and queues, on both stores (docs/spec/broker.md, Topics)."""

from __future__ import annotations

import pytest

from claudemesh.broker.store.topic_deletion import Deletion, TopicGone, TopicKept
from claudemesh.broker.store.types import Accepted, Ack
from tests.support.stores import ENGINES, NOW, World, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


def wish(w: World, topic: str, *, force: bool = False) -> Deletion:
    """The owner's wish to delete a topic."""
    return Deletion(w.mesh.id, topic, w.owner.id, may_any=True, force=force, now_ms=NOW)


async def test_a_deletion_removes_the_topic_and_its_subscriptions_and_is_remembered(engine: str) -> None:
    """A topic of the same name begins without subscribers, and is no deleted one."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.topics.create(w.mesh.id, "deploys", "topic", w.owner.id, NOW)
        await w.store.topics.subscribe(w.mesh.id, "deploys", bob.id, NOW)
        assert await w.store.topic_deletions.delete(wish(w, "deploys")) == TopicGone("topic", 0)
        assert await w.store.topics.mode(w.mesh.id, "deploys") is None
        assert not await w.store.topics.subscribe(w.mesh.id, "deploys", bob.id, NOW)
        names = ["other", "deploys", "never"]
        assert list(await w.store.topic_deletions.deleted(w.mesh.id, names)) == ["deploys"]
        assert await w.store.topics.create(w.mesh.id, "deploys", "topic", w.owner.id, NOW)
        assert list(await w.store.topic_deletions.deleted(w.mesh.id, names)) == []
        listed = {row.topic: row for row in await w.store.topics.page(w.mesh.id, bob.id)}
        assert (listed["deploys"].subscribed, listed["deploys"].subscribers) == (False, 0)


async def test_a_post_that_was_accepted_is_still_delivered(engine: str) -> None:
    """The deletion takes nothing back."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.topics.create(w.mesh.id, "deploys", "topic", w.owner.id, NOW)
        await w.store.topics.subscribe(w.mesh.id, "deploys", bob.id, NOW)
        [accepted] = await w.store.messages.accept([w.post(w.owner, "deploys")], NOW)
        assert isinstance(accepted, Accepted)
        assert isinstance(await w.store.topic_deletions.delete(wish(w, "deploys")), TopicGone)
        due = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=10)
        assert len(due) == 1
        assert due[0].envelope


async def test_a_queue_with_messages_is_kept_unless_they_are_dropped(engine: str) -> None:
    """Those that wait, and those that a subscriber has and has not acknowledged."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.topics.create(w.mesh.id, "jobs", "queue", w.owner.id, NOW)
        await w.store.topics.subscribe(w.mesh.id, "jobs", bob.id, NOW)
        await w.store.messages.accept([w.to_queue(w.owner, "jobs") for _ in range(3)], NOW)
        rows = await w.store.queues.take(w.mesh.id, "jobs", [bob.id], 2)
        await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, (rows[0][1].delivery_id,))])
        kept = await w.store.topic_deletions.delete(wish(w, "jobs"))
        assert kept == TopicKept("queue_not_empty", 2)
        assert await w.store.topics.mode(w.mesh.id, "jobs") == "queue"
        gone = await w.store.topic_deletions.delete(wish(w, "jobs", force=True))
        assert gone == TopicGone("queue", 2)
        assert await w.store.messages.deliveries_pending() == 0


async def test_only_its_creator_or_a_privileged_member_deletes_a_topic(engine: str) -> None:
    """Another mesh's topic of the same name is not touched."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await w.store.topics.create(w.mesh.id, "ours", "topic", bob.id, NOW)
        by_bob = replace(wish(w, "ours"), member_id=bob.id, may_any=False)
        by_cleo = replace(by_bob, member_id=cleo.id)
        assert await w.store.topic_deletions.delete(by_cleo) == TopicKept("not_authorized")
        assert await w.store.topic_deletions.delete(replace(by_bob, topic="no")) == TopicKept(
            "topic_not_found"
        )
        assert await w.store.topic_deletions.delete(by_bob) == TopicGone("topic", 0)
        assert await w.store.topic_deletions.delete(by_bob) == TopicKept("topic_not_found")


async def test_a_mesh_remembers_its_newest_deletions(engine: str) -> None:
    """The oldest ones go first, beyond the number that the wish allows."""
    async with world(engine) as w:
        names = ["a", "b", "c"]
        for number, name in enumerate(names):
            await w.store.topics.create(w.mesh.id, name, "topic", w.owner.id, NOW)
            deletion = replace(wish(w, name), now_ms=NOW + number, remembered=2)
            assert isinstance(await w.store.topic_deletions.delete(deletion), TopicGone)
        assert sorted(await w.store.topic_deletions.deleted(w.mesh.id, names)) == ["b", "c"]
