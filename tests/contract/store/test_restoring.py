"""State that a restore has lost is put back: members under their ids, posts to who was subscribed."""

from __future__ import annotations

import asyncio

import pytest

from claudemesh.broker.store.types import Ack, Joined, JoinRefused
from claudemesh.protocol.ids import UlidFactory
from tests.support.stores import DAY, ENGINES, NOW, member, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def test_a_member_is_put_back_under_its_id_once(engine: str) -> None:
    """Also when two brokers do it at once; what was written is a member like any other."""
    async with world(engine) as w:
        bob = member(w.mesh.id, "bob")
        outcomes = await asyncio.gather(*(w.store.restoring.put_back_member(bob, None) for _ in range(4)))
        assert sum(outcome == Joined(bob, created=True) for outcome in outcomes) == 1
        assert {outcome.member for outcome in outcomes if isinstance(outcome, Joined)} == {bob}
        assert await w.store.members.by_key(w.mesh.id, bob.ed25519_pubkey) == bob
        [send] = await w.store.messages.accept([w.post(w.owner, "all")], NOW)
        assert len(await w.owed(bob)) == 1, send


async def test_putting_back_takes_nothing_from_anybody(engine: str) -> None:
    """An id or a name that another member has is refused, and nothing is written."""
    async with world(engine) as w:
        same_id = member(w.mesh.id, "mallory", id=w.owner.id)
        same_name = member(w.mesh.id, "ALICE")
        assert await w.store.restoring.put_back_member(same_id, None) == JoinRefused("id_taken")
        assert await w.store.restoring.put_back_member(same_name, None) == JoinRefused("name_taken")
        assert await w.store.restoring.sealing_key_taken(w.mesh.id, w.owner.x25519_pubkey)
        assert not await w.store.restoring.sealing_key_taken(w.mesh.id, same_name.x25519_pubkey)
        same_box = member(w.mesh.id, "dora", x25519_pubkey=w.owner.x25519_pubkey)
        assert await w.store.restoring.put_back_member(same_box, None) == JoinRefused("key_taken")
        assert [one.name for one in await w.store.members.all(w.mesh.id)] == ["alice"]


async def test_a_use_of_the_invite_is_gone_again(engine: str) -> None:
    """Otherwise the invite could be used once more; a used-up invite stays used up."""
    async with world(engine) as w:
        invite = w.invite(max_uses=1)
        await w.store.members.register_invite(invite)
        for name in ("bob", "cleo"):
            outcome = await w.store.restoring.put_back_member(member(w.mesh.id, name), invite.id)
            assert isinstance(outcome, Joined)
        [row] = await w.store.members.invites(w.mesh.id)
        assert row.used_count == 1
        assert await w.store.members.join(invite, member(w.mesh.id, "dora"), NOW) == JoinRefused(
            "invite_exhausted"
        )


async def test_posts_since_a_moment_are_owed_to_a_subscriber_that_was_lost(engine: str) -> None:
    """Each once, in their order; none of its own, of another topic, or of before."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await w.store.topics.create(w.mesh.id, "deploys", "topic", w.owner.id, NOW)
        times = iter([NOW - DAY, NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 4])
        ids = [UlidFactory(lambda at=at: at, lambda count: bytes(count)).new() for at in times]  # type: ignore[misc]
        others = [
            w.post(bob, "deploys", broker_message_id=ids[3]),
            w.post(cleo, "all", broker_message_id=ids[4]),
        ]
        posts = [w.post(cleo, "deploys", broker_message_id=one) for one in ids[:3]]
        await w.store.messages.accept([*posts, *others], NOW)
        await w.store.topics.subscribe(w.mesh.id, "deploys", bob.id, NOW)
        await w.store.messages.accept([w.post(cleo, "deploys", broker_message_id=ids[5])], NOW)

        async def backfill(limit: int = 100) -> int:
            return await w.store.restoring.backfill(
                w.mesh.id, "deploys", bob.id, since_ms=NOW, limit=limit, now_ms=NOW
            )

        assert await backfill() == 2
        due = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=100)
        assert [row.broker_message_id for row in due] == [ids[4], ids[5], ids[1], ids[2]]
        assert await backfill() == 0
        await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, tuple(row.delivery_id for row in due))])
        assert await backfill(limit=1) == 1
        assert await w.owed(bob) == [ids[5]]
