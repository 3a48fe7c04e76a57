"""The history of a member, on both stores (docs/spec/broker.md, History)."""

from __future__ import annotations

import pytest

from claudemesh.broker.store.history import HistoryWanted
from claudemesh.broker.store.types import Accepted, Ack, Member, NewSend
from claudemesh.runtime.lived import Mark
from tests.support.stores import DAY, ENGINES, NOW, World, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


def wish(w: World, of: Member) -> HistoryWanted:
    """The newest messages of a member."""
    return HistoryWanted(w.mesh.id, of.id, None, None, 100, 1 << 20)


async def accept(w: World, *sends: NewSend) -> list[int]:
    """Accept sends one by one; returns their history ids."""
    ids = []
    for send in sends:
        [outcome] = await w.store.messages.accept([send], NOW)
        assert isinstance(outcome, Accepted)
        ids.append(outcome.history_id)
    return ids


async def seen(w: World, wanted: HistoryWanted) -> list[int]:
    """The history ids of a page."""
    return [row.history_id for row in (await w.store.history.page(wanted)).rows]


async def test_a_member_sees_dms_to_and_from_itself_and_no_others(engine: str) -> None:
    """A dm to itself is in it once."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        mine = await accept(w, w.dm(w.owner, bob), w.dm(bob, w.owner), w.dm(bob, bob))
        theirs = await accept(w, w.dm(w.owner, cleo), w.dm(cleo, w.owner))
        assert await seen(w, wish(w, bob)) == mine
        assert await seen(w, wish(w, cleo)) == theirs
        page = await w.store.history.page(wish(w, bob))
        first = page.rows[0]
        assert (first.sender_member_id, first.sender_pubkey) == (w.owner.id, w.owner.ed25519_pubkey)
        assert (first.accepted_at, page.more, page.pruned_before) == (NOW, False, 0)
        assert first.envelope == w.dm(w.owner, bob).envelope


async def test_posts_are_seen_from_the_time_of_a_subscription_only(engine: str) -> None:
    """Neither those from before it, nor those after its end; a second subscription is a second period."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.topics.create(w.mesh.id, "news", "topic", w.owner.id, NOW)
        expected: list[int] = []
        for _ in range(2):
            await accept(w, w.post(w.owner, "news"))
            await w.store.topics.subscribe(w.mesh.id, "news", bob.id, NOW)
            expected += await accept(w, w.post(w.owner, "news"), w.post(bob, "news"))
            await w.store.topics.unsubscribe(w.mesh.id, "news", bob.id)
        await accept(w, w.post(w.owner, "news"))
        assert await seen(w, wish(w, bob)) == expected
        assert await seen(w, replace(wish(w, bob), destination=("topic", "news"))) == expected
        assert await seen(w, replace(wish(w, bob), destination=("topic", "all"))) == []


async def test_posts_of_a_deleted_topic_stay_in_the_history(engine: str) -> None:
    """They were delivered to its subscribers."""
    async with world(engine) as w:
        bob = await w.join("bob")
        expected = await accept(w, w.post(w.owner, "all"))
        await w.store.topics.unsubscribe(w.mesh.id, "all", bob.id)
        await accept(w, w.post(w.owner, "all"))
        assert await seen(w, wish(w, bob)) == expected


async def test_a_message_of_a_queue_is_seen_by_the_member_that_acknowledged_it(engine: str) -> None:
    """Other subscribers do not see it, nor one that has it and returns it."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await w.store.topics.create(w.mesh.id, "jobs", "queue", w.owner.id, NOW)
        for one in (bob, cleo):
            await w.store.topics.subscribe(w.mesh.id, "jobs", one.id, NOW)
        ids = await accept(w, w.to_queue(w.owner, "jobs"), w.to_queue(w.owner, "jobs"))
        (_, first), _ = await w.store.queues.take(w.mesh.id, "jobs", [bob.id], 8)
        await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, (first.delivery_id,))])
        await w.store.queues.release(w.mesh.id, bob.id, "c1", NOW)
        [(_, second)] = await w.store.queues.take(w.mesh.id, "jobs", [cleo.id], 8)
        await w.store.messages.acknowledge([Ack(w.mesh.id, cleo.id, (second.delivery_id,))])
        assert await seen(w, wish(w, bob)) == ids[:1]
        assert await seen(w, replace(wish(w, cleo), destination=("queue", "jobs"))) == ids[1:]
        assert await seen(w, replace(wish(w, cleo), destination=("queue", "other"))) == []


async def test_a_destination_selects_the_dms_with_one_member_in_both_directions(engine: str) -> None:
    """A key that no member has selects none."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        expected = await accept(w, w.dm(w.owner, bob), w.dm(bob, w.owner))
        await accept(w, w.dm(bob, cleo), w.dm(cleo, bob), w.post(w.owner, "all"))
        with_owner = replace(wish(w, bob), destination=("dm", w.owner.ed25519_pubkey))
        assert await seen(w, with_owner) == expected
        assert await seen(w, replace(with_owner, destination=("dm", "00" * 32))) == []


async def test_pages_follow_one_another_in_both_directions(engine: str) -> None:
    """Behind an id from the oldest, and before an id from the newest; each page is ascending."""
    async with world(engine) as w:
        bob = await w.join("bob")
        ids = []
        for _ in range(3):
            ids += await accept(w, w.dm(w.owner, bob), w.post(w.owner, "all"), w.dm(bob, w.owner))
        forward: list[int] = []
        while True:
            wanted = replace(wish(w, bob), after=forward[-1] if forward else 0, limit=4)
            page = await w.store.history.page(wanted)
            forward += [row.history_id for row in page.rows]
            assert page.more == (len(forward) < len(ids))
            if not page.more:
                break
        assert forward == ids
        backward: list[int] = []
        while len(backward) < len(ids):
            wanted = replace(wish(w, bob), before=backward[0] if backward else None, limit=4)
            page = await w.store.history.page(wanted)
            backward = [row.history_id for row in page.rows] + backward
            assert page.more == (len(backward) < len(ids))
        assert backward == ids
        assert await seen(w, replace(wish(w, bob), after=ids[1], before=ids[4])) == ids[2:4]


async def test_a_page_has_as_many_bytes_as_fit_and_one_message_at_least(engine: str) -> None:
    """The newest ones when it is read from there."""
    async with world(engine) as w:
        bob = await w.join("bob")
        ids = await accept(w, *(w.dm(w.owner, bob, envelope=b"x" * 100) for _ in range(5)))
        page = await w.store.history.page(replace(wish(w, bob), max_bytes=250))
        assert ([row.history_id for row in page.rows], page.more) == (ids[-2:], True)
        page = await w.store.history.page(replace(wish(w, bob), max_bytes=10, after=0))
        assert ([row.history_id for row in page.rows], page.more) == (ids[:1], True)


async def test_the_history_tells_where_retention_has_deleted(engine: str) -> None:
    """A message that is owed stays in it."""
    async with world(engine, message_retention_days=1) as w:
        bob = await w.join("bob")
        ids = await accept(w, w.dm(w.owner, bob), w.dm(w.owner, bob))
        due = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=1)
        await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, (due[0].delivery_id,))])
        assert await w.store.upkeep.note_lived_clock(Mark(0, "boot", 0), 0) == 0
        await w.store.retention.sweep_messages(3 * DAY, NOW, 0)
        page = await w.store.history.page(wish(w, bob))
        assert ([row.history_id for row in page.rows], page.pruned_before) == (ids[1:], ids[0] + 1)


async def test_posts_that_a_restore_has_lost_are_seen_when_they_are_delivered_again(engine: str) -> None:
    """The subscription is as old then as the posts that its member is owed."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.topics.create(w.mesh.id, "news", "topic", w.owner.id, NOW)
        ids = await accept(w, w.post(w.owner, "news"))
        await w.store.topics.subscribe(w.mesh.id, "news", bob.id, NOW)
        assert await seen(w, wish(w, bob)) == []
        await w.store.restoring.backfill(w.mesh.id, "news", bob.id, since_ms=NOW - 1, limit=10, now_ms=NOW)
        assert await seen(w, wish(w, bob)) == ids
