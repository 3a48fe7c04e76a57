"""Keys of topics, on both stores (docs/spec/broker.md, Topic keys)."""

from __future__ import annotations

import asyncio

import pytest

from claudemesh.broker.store.topic_deletion import Deletion
from claudemesh.broker.store.topic_keys import HOUR_MS, EpochMade, EpochRefused, KeyState
from claudemesh.broker.store.types import Accepted, Ack, KeyStep, Member, NewKeys, Refused, Rotated
from tests.support.epochs import epoch_row, make_epoch, wrap_row
from tests.support.stores import ENGINES, NOW, World, member, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def topic(w: World, *subscribers: Member, name: str = "alerts", mode: str = "topic") -> None:
    """A topic with these subscribers."""
    assert await w.store.topics.create(w.mesh.id, name, mode, w.owner.id, NOW)  # type: ignore[arg-type]
    for one in subscribers:
        assert await w.store.topics.subscribe(w.mesh.id, name, one.id, NOW)


async def state(w: World, one: Member, *key_epochs: int, name: str = "alerts") -> KeyState:
    """The keys of the topic as a member sees them."""
    found = await w.store.topic_keys.state(w.mesh.id, name, one.id, key_epochs)
    assert found is not None
    return found


async def delete(w: World) -> None:
    """Delete the topic."""
    wish = Deletion(w.mesh.id, "alerts", w.owner.id, may_any=True, force=False, now_ms=NOW)
    await w.store.topic_deletions.delete(wish)


async def codes(w: World, *key_epochs: int) -> list[str | None]:
    """The codes of refused posts under these epochs, None for accepted ones."""
    sends = [w.post(w.owner, "alerts", key_epoch=number) for number in key_epochs]
    return [getattr(one, "error", None) for one in await w.store.messages.accept(sends, NOW)]


async def missing(w: World, limit: int = 500) -> list[str]:
    """Names of the subscribers without a wrap."""
    found = await w.store.topic_keys.missing(w.mesh.id, "alerts", limit)
    return sorted(one.name for one in found)


async def test_a_topic_without_an_epoch_misses_all_its_subscribers(engine: str) -> None:
    """Any of them can make the first one."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, w.owner, bob)
        found = await state(w, bob)
        assert (found.mode, found.current, found.epochs, found.wraps) == ("topic", 0, (), ())
        assert await missing(w) == ["alice", "bob"]
        assert await w.store.topic_keys.state(w.mesh.id, "nowhere", bob.id, ()) is None


async def test_an_epoch_and_its_wraps_are_made_together(engine: str) -> None:
    """Each member sees its own wrap; a subscriber without one is missing."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await topic(w, w.owner, bob, cleo)
        made = await make_epoch(w, "alerts", 0, w.owner, bob)
        assert isinstance(made, EpochMade) and made.is_new
        assert sorted(made.recipients) == sorted([w.owner.id, bob.id])
        found = await state(w, bob)
        assert (found.current, [one.key_epoch for one in found.epochs]) == (1, [1])
        assert [(one.recipient, one.wrapped_by) for one in found.wraps] == [
            (bob.ed25519_pubkey, w.owner.ed25519_pubkey)
        ]
        assert (await state(w, cleo)).wraps == ()
        assert await missing(w) == ["cleo"]


async def test_a_list_counts_the_subscribers_without_a_key(engine: str) -> None:
    """Only with the subscribers; a topic without an epoch has no such number."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await topic(w, bob, cleo)
        await make_epoch(w, "alerts", 0, w.owner, bob)
        for counts, keyless in ((True, {"alerts": 1, "all": None}), (False, {"alerts": None, "all": None})):
            rows = await w.store.topics.page(w.mesh.id, bob.id, counts=counts)
            assert {row.topic: row.keyless for row in rows} == keyless
            assert {row.topic: row.key_epoch for row in rows} == {"alerts": 1, "all": 0}
        await w.store.members.set_status(w.mesh.id, cleo.id, "revoked")
        [row, _] = await w.store.topics.page(w.mesh.id, bob.id)
        assert row.keyless == 0


async def test_of_two_makers_one_wins_and_the_other_finds_its_epoch(engine: str) -> None:
    """Compare-and-set; the loser has written nothing."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, w.owner, bob)
        outcomes = await asyncio.gather(
            make_epoch(w, "alerts", 0, w.owner, bob), make_epoch(w, "alerts", 0, bob, w.owner)
        )
        [won] = [one for one in outcomes if isinstance(one, EpochMade)]
        [lost] = [one for one in outcomes if isinstance(one, EpochRefused)]
        assert lost == EpochRefused("key_epoch_conflict", 1)
        assert won.key_epoch == 1
        assert len((await state(w, bob)).wraps) == 1


async def test_the_same_epoch_once_more_is_answered_like_the_first_time(engine: str) -> None:
    """The answer of a call may be lost."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, w.owner, bob)
        epoch = epoch_row(1, w.owner)
        first = await make_epoch(w, "alerts", 0, w.owner, epoch=epoch)
        again = await make_epoch(w, "alerts", 0, w.owner, bob, epoch=epoch)
        assert isinstance(first, EpochMade) and first.is_new
        assert isinstance(again, EpochMade) and not again.is_new
        assert await missing(w) == []
        other = await make_epoch(w, "alerts", 0, w.owner, epoch=epoch_row(1, w.owner))
        assert other == EpochRefused("key_epoch_conflict", 1)


async def test_an_epoch_without_wraps_misses_all_subscribers(engine: str) -> None:
    """Its maker has died after it was taken; another member makes the next one."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, w.owner, bob)
        assert isinstance(await make_epoch(w, "alerts", 0, w.owner, wraps=()), EpochMade)
        assert await missing(w) == ["alice", "bob"]
        assert isinstance(await make_epoch(w, "alerts", 1, bob, w.owner), EpochMade)
        assert await missing(w) == []


async def test_an_epoch_of_before_a_restore_is_registered_again(engine: str) -> None:
    """Numbers may be left out, but not many of them."""
    async with world(engine) as w:
        await topic(w, w.owner)
        assert isinstance(await make_epoch(w, "alerts", 0, w.owner, number=7), EpochMade)
        assert (await state(w, w.owner)).current == 7
        for number in (7, 6, 7 + 65):
            refused = await make_epoch(w, "alerts", 7, w.owner, number=number)
            assert refused == EpochRefused("key_epoch_conflict", 7)


async def test_a_member_that_left_makes_no_epoch_and_gets_no_wrap(engine: str) -> None:
    """Neither does a member that is no subscriber, apart from the maker."""
    async with world(engine) as w:
        bob, cleo, dora = [await w.join(name) for name in ("bob", "cleo", "dora")]
        await topic(w, bob, cleo)
        await w.store.members.set_status(w.mesh.id, cleo.id, "revoked")
        assert await make_epoch(w, "alerts", 0, cleo) == EpochRefused("not_a_member")
        made = await make_epoch(w, "alerts", 0, w.owner, bob, cleo, dora)
        assert isinstance(made, EpochMade)
        assert sorted(made.recipients) == sorted([w.owner.id, bob.id])
        assert await w.store.topic_keys.add_wraps(w.mesh.id, "alerts", cleo.id, [], 4) is None
        added = [wrap_row(1, cleo, bob), wrap_row(1, dora, bob)]
        assert await w.store.topic_keys.add_wraps(w.mesh.id, "alerts", bob.id, added, 4) == [dora.id]
        assert await make_epoch(w, "nowhere", 0, w.owner) == EpochRefused("topic_not_found")


async def test_a_key_has_at_most_four_wraps_of_an_epoch(engine: str) -> None:
    """A wrapper replaces its own one; a fifth wrapper adds none."""
    async with world(engine) as w:
        bob, *others = [await w.join(name) for name in ("bob", "cleo", "dora", "eve", "finn")]
        await topic(w, bob, *others)
        await make_epoch(w, "alerts", 0, w.owner, bob)
        keys = w.store.topic_keys
        for one in others[:3]:
            assert await keys.add_wraps(w.mesh.id, "alerts", one.id, [wrap_row(1, bob, one)], 4) == [bob.id]
        fifth = [wrap_row(1, bob, others[3])]
        assert await keys.add_wraps(w.mesh.id, "alerts", others[3].id, fifth, 4) == []
        again = [wrap_row(1, bob, others[0])]
        assert await keys.add_wraps(w.mesh.id, "alerts", others[0].id, again, 4) == [bob.id]
        assert again[0] in (await state(w, bob)).wraps
        assert len((await state(w, bob)).wraps) == 4
        unknown = [wrap_row(5, bob, w.owner)]
        assert await keys.add_wraps(w.mesh.id, "alerts", w.owner.id, unknown, 4) is None


async def test_a_member_with_new_keys_is_missing_until_it_has_a_wrap_for_them(engine: str) -> None:
    """The wrap for the older key stays: the member may still open it."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, bob)
        await make_epoch(w, "alerts", 0, w.owner, bob)
        new = member(w.mesh.id, "bob")
        step = KeyStep(bob.ed25519_pubkey, new.ed25519_pubkey, new.x25519_pubkey, "{}")
        rotated = await w.store.rotations.rotate(
            w.mesh.id, NewKeys(new.x25519_signature, new.key_id, (step,)), NOW
        )
        assert isinstance(rotated, Rotated)
        assert await missing(w) == ["bob"]
        bob = rotated.member
        added = [wrap_row(1, bob, w.owner)]
        assert await w.store.topic_keys.add_wraps(w.mesh.id, "alerts", w.owner.id, added, 4) == [bob.id]
        assert await missing(w) == []
        assert [one.recipient for one in (await state(w, bob)).wraps] == [
            bob.ed25519_pubkey,
            step.old_pubkey,
        ]


@pytest.mark.parametrize("act", ["unsubscribe", "leave", "revoke", "reap"])
async def test_a_subscriber_that_goes_makes_the_next_epoch_wanted(engine: str, act: str) -> None:
    """In the transaction of the act; making the epoch ends it, and nothing else does."""
    async with world(engine) as w:
        bob = await w.join("bob", ephemeral=True)
        await topic(w, w.owner, bob)
        await topic(w, w.owner, name="other")
        await make_epoch(w, "alerts", 0, w.owner, bob)
        await make_epoch(w, "other", 0, w.owner)
        assert await w.store.topic_keys.wanted(w.mesh.id) == []
        if act == "unsubscribe":
            await w.store.topics.unsubscribe(w.mesh.id, "alerts", bob.id)
        elif act == "leave":
            await w.store.acts.leave(w.mesh.id, bob.id, force=False)
        elif act == "revoke":
            await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        else:
            gone = await w.store.retention.reap_ephemeral(
                await w.store.retention.absent_ephemerals(10 * HOUR_MS), 10 * HOUR_MS
            )
            assert [one[1] for one in gone] == [bob.id]
        assert (await state(w, w.owner)).rekey_wanted
        assert await w.store.topic_keys.wanted(w.mesh.id) == ["alerts"]
        assert await w.store.topic_keys.wanted(w.mesh.id, bob.id) == ["alerts"]
        await make_epoch(w, "alerts", 1, w.owner)
        assert not (await state(w, w.owner)).rekey_wanted
        assert await w.store.topic_keys.wanted(w.mesh.id) == []


async def test_a_poster_with_a_wrap_that_is_revoked_makes_the_next_epoch_wanted(engine: str) -> None:
    """It has the key, though it never subscribed."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, w.owner)
        await make_epoch(w, "alerts", 0, bob)
        await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        assert await w.store.topic_keys.wanted(w.mesh.id) == ["alerts"]


async def test_a_revocation_beside_the_making_of_an_epoch_leaves_it_wanted_or_without_a_wrap(
    engine: str,
) -> None:
    """Whichever comes first."""
    async with world(engine) as w:
        people = [await w.join(f"bob{number}") for number in range(8)]
        await topic(w, w.owner, *people)
        for number, one in enumerate(people):
            await asyncio.gather(
                make_epoch(w, "alerts", number, w.owner, *people),
                w.store.members.set_status(w.mesh.id, one.id, "revoked"),
            )
            found = await state(w, one, number + 1)
            has_wrap = any(wrap.key_epoch == number + 1 for wrap in found.wraps)
            assert found.rekey_wanted or not has_wrap


async def test_a_new_epoch_is_wanted_of_a_topic_by_name_and_by_age(engine: str) -> None:
    """Age is lived time; a topic without a key has none."""
    async with world(engine) as w:
        await topic(w, w.owner)
        await topic(w, w.owner, name="plain")
        keys = w.store.topic_keys
        assert await keys.want(w.mesh.id, "nowhere") is None
        assert await keys.want(w.mesh.id, "plain") is False
        await make_epoch(w, "alerts", 0, w.owner, lived_ms=5000)
        assert await keys.want_old(5000) == 0
        assert await keys.want_old(5001) == 1
        assert await keys.want_old(5001) == 0
        assert await keys.wanted(w.mesh.id) == ["alerts"]
        await make_epoch(w, "alerts", 1, w.owner, lived_ms=6000)
        assert await keys.want(w.mesh.id, "alerts") is True
        assert await keys.wanted(w.mesh.id) == ["alerts"]


async def test_a_member_makes_a_bounded_number_of_epochs_an_hour(engine: str) -> None:
    """Of all topics together, in lived time."""
    async with world(engine) as w:
        await topic(w, w.owner)
        for number in range(2):
            made = await make_epoch(w, "alerts", number, w.owner, most_made=2, lived_ms=HOUR_MS)
            assert isinstance(made, EpochMade)
        refused = await make_epoch(w, "alerts", 2, w.owner, most_made=2, lived_ms=2 * HOUR_MS - 1)
        assert refused == EpochRefused("too_many_epochs")
        later = await make_epoch(w, "alerts", 2, w.owner, most_made=2, lived_ms=2 * HOUR_MS)
        assert isinstance(later, EpochMade)


async def test_holders_are_active_members_with_a_wrap(engine: str) -> None:
    """Of those that are asked about."""
    async with world(engine) as w:
        bob, cleo, dora = [await w.join(name) for name in ("bob", "cleo", "dora")]
        await topic(w, bob, cleo, dora)
        await make_epoch(w, "alerts", 0, w.owner, bob, cleo)
        await w.store.members.set_status(w.mesh.id, cleo.id, "revoked")
        among = [bob.id, cleo.id, dora.id]
        assert await w.store.topic_keys.holders(w.mesh.id, "alerts", among) == [bob.id]
        assert await w.store.topic_keys.holders(w.mesh.id, "alerts", among, subscribed=True) == [bob.id]
        await w.store.topics.unsubscribe(w.mesh.id, "alerts", bob.id)
        assert await w.store.topic_keys.holders(w.mesh.id, "alerts", among) == [bob.id]
        assert await w.store.topic_keys.holders(w.mesh.id, "alerts", among, subscribed=True) == []


async def test_many_subscribers_are_listed_and_wrapped_in_parts(engine: str) -> None:
    """Some at a time, until none is missing."""
    async with world(engine) as w:
        await topic(w, w.owner)
        people = [member(w.mesh.id, f"m{number}") for number in range(200)]
        for one in people:
            await w.store.restoring.put_back_member(one, None)
            await w.store.topics.subscribe(w.mesh.id, "alerts", one.id, NOW)
        first = await w.store.topic_keys.missing(w.mesh.id, "alerts", 50)
        made = await make_epoch(w, "alerts", 0, w.owner, *first[:49])
        assert isinstance(made, EpochMade)
        rounds = 0
        while listed := await w.store.topic_keys.missing(w.mesh.id, "alerts", 50):
            assert len(listed) <= 50
            added = await w.store.topic_keys.add_wraps(
                w.mesh.id, "alerts", w.owner.id, [wrap_row(1, one, w.owner) for one in listed], 4
            )
            assert added is not None and len(added) == len(listed)
            rounds += 1
        assert rounds == 4


async def test_a_send_is_accepted_under_the_last_three_epochs(engine: str) -> None:
    """A refusal writes nothing, so the same send can come again under another epoch."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, bob)
        await topic(w, bob, name="jobs", mode="queue")
        for name in ("alerts", "jobs"):
            for number in range(4):
                await make_epoch(w, name, number, w.owner)
        sends = [
            build(w.owner, name, key_epoch=key_epoch)
            for build, name in ((w.post, "alerts"), (w.to_queue, "jobs"))
            for key_epoch in (1, 2, 3, 4, 5, None)
        ]
        outcomes = await w.store.messages.accept(sends, NOW)
        each = ["key_epoch_expired", None, None, None, "key_epoch_unknown", None] * 2
        for outcome, refusal in zip(outcomes, each, strict=True):
            assert outcome == Refused(refusal) if refusal else isinstance(outcome, Accepted)
        again = await w.store.messages.accept([sends[0]._replace(key_epoch=4)], NOW)
        assert isinstance(again[0], Accepted)
        first = w.post(w.owner, "all", key_epoch=1)
        assert await w.store.messages.accept([first], NOW) == [Refused("key_epoch_unknown")]


@pytest.mark.parametrize("act", ["revoke", "leave"])
async def test_a_revocation_ends_the_epochs_that_the_member_may_hold(engine: str, act: str) -> None:
    """A poster that has not been told of it is refused, and seals again. A departure refuses nothing."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, w.owner, bob)
        await topic(w, bob, name="jobs", mode="queue")
        await topic(w, w.owner, name="other")
        for number in range(2):
            await make_epoch(w, "alerts", number, w.owner, bob)
            await make_epoch(w, "jobs", number, w.owner, bob)
            await make_epoch(w, "other", number, w.owner)
        if act == "revoke":
            await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        else:
            await w.store.acts.leave(w.mesh.id, bob.id, force=False)

        async def refusals(*key_epochs: int) -> list[list[str | None]]:
            sends = [
                build(w.owner, name, key_epoch=key_epoch)
                for build, name in ((w.post, "alerts"), (w.to_queue, "jobs"), (w.post, "other"))
                for key_epoch in key_epochs
            ]
            found = [getattr(one, "error", None) for one in await w.store.messages.accept(sends, NOW)]
            size = len(key_epochs)
            return [found[at : at + size] for at in range(0, len(found), size)]

        old = "key_epoch_expired" if act == "revoke" else None
        assert await refusals(1, 2, 3) == [
            [old, old, "key_epoch_unknown"],
            [old, old, "key_epoch_unknown"],
            [None, None, "key_epoch_unknown"],
        ]
        await make_epoch(w, "alerts", 2, w.owner)
        await make_epoch(w, "jobs", 2, w.owner)
        assert (await refusals(2, 3))[:2] == [[old, None]] * 2


async def test_a_send_under_a_number_that_was_left_out_is_refused(engine: str) -> None:
    """No epoch of that number is here, so no member could be given its key."""
    async with world(engine) as w:
        await topic(w, w.owner)
        await make_epoch(w, "alerts", 0, w.owner)
        await make_epoch(w, "alerts", 1, w.owner, number=9)
        assert await codes(w, 1, 7, 8, 9) == ["key_epoch_expired"] * 3 + [None]


async def test_a_queue_s_message_goes_to_a_worker_with_a_wrap_of_its_epoch(engine: str) -> None:
    """Others get what they can open, and none is held up by what they cannot."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await topic(w, bob, cleo, name="jobs", mode="queue")
        await make_epoch(w, "jobs", 0, w.owner, bob)
        sealed = [w.to_queue(w.owner, "jobs", key_epoch=1) for _ in range(3)]
        await w.store.messages.accept(sealed, NOW)
        queues = w.store.queues
        assert await queues.take(w.mesh.id, "jobs", [cleo.id], 8) == []
        plain = [w.to_queue(w.owner, "jobs") for _ in range(2)]
        await w.store.messages.accept(plain, NOW)
        [(taker, row)] = await queues.take(w.mesh.id, "jobs", [cleo.id], 1)
        assert (taker, row.broker_message_id) == (cleo.id, plain[0].broker_message_id)
        taken = await queues.take(w.mesh.id, "jobs", [cleo.id, bob.id], 8)
        takers = {row.broker_message_id: taker for taker, row in taken}
        assert [takers[send.broker_message_id] for send in sealed] == [bob.id] * 3
        assert len(takers) == 4
        more = w.to_queue(w.owner, "jobs", key_epoch=1)
        await w.store.messages.accept([more], NOW)
        await w.store.topic_keys.add_wraps(w.mesh.id, "jobs", bob.id, [wrap_row(1, cleo, bob)], 4)
        [(taker, row)] = await queues.take(w.mesh.id, "jobs", [cleo.id], 8)
        assert row.broker_message_id == more.broker_message_id


async def test_an_older_epoch_is_owed_for_messages_since_the_subscription_only(engine: str) -> None:
    """And for messages of a queue that wait."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w)
        await topic(w, bob, name="jobs", mode="queue")
        await make_epoch(w, "alerts", 0, w.owner)
        await make_epoch(w, "jobs", 0, w.owner)
        owed = w.store.topic_keys.is_owed
        await w.store.messages.accept([w.post(w.owner, "alerts", key_epoch=1)], NOW)
        await w.store.topics.subscribe(w.mesh.id, "alerts", bob.id, NOW + 1)
        assert not await owed(w.mesh.id, "alerts", bob.id, 1)
        await w.store.messages.accept([w.post(w.owner, "alerts", key_epoch=1)], NOW + 1)
        assert await owed(w.mesh.id, "alerts", bob.id, 1)
        assert not await owed(w.mesh.id, "alerts", w.owner.id, 1)
        assert not await owed(w.mesh.id, "jobs", bob.id, 1)
        await w.store.messages.accept([w.to_queue(w.owner, "jobs", key_epoch=1)], NOW)
        assert await owed(w.mesh.id, "jobs", bob.id, 1)


async def test_a_subscription_that_is_put_back_brings_posts_and_no_key_of_before(engine: str) -> None:
    """Any member can name an earlier time as the one at which it was subscribed."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w)
        for number in range(2):
            await make_epoch(w, "alerts", number, w.owner)
            await w.store.messages.accept([w.post(w.owner, "alerts", key_epoch=number + 1)], NOW)
        await w.store.topics.subscribe(w.mesh.id, "alerts", bob.id, NOW + 1)
        put_back = w.store.restoring.backfill
        assert await put_back(w.mesh.id, "alerts", bob.id, since_ms=NOW - 1, limit=10, now_ms=NOW + 1) == 2
        owed = w.store.topic_keys.is_owed
        assert [await owed(w.mesh.id, "alerts", bob.id, number) for number in (1, 2)] == [False, False]
        assert [one.id for one in await w.store.topic_keys.missing(w.mesh.id, "alerts", 10)] == [bob.id]


async def test_what_no_message_needs_is_swept(engine: str) -> None:
    """First the wraps, when nothing under the epoch is owed; the epoch, when nothing under it is stored."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, bob)
        keys = w.store.topic_keys
        for number in range(2):
            await make_epoch(w, "alerts", number, w.owner, bob, lived_ms=1000)
        await w.store.messages.accept([w.post(w.owner, "alerts", key_epoch=2)], NOW)
        for number in range(2, 5):
            await make_epoch(w, "alerts", number, w.owner, bob, lived_ms=1000)
        assert await keys.sweep(3, 1000) == 0
        assert await keys.sweep(3, 1001) == 1
        found = await state(w, bob, *range(1, 6))
        assert [one.key_epoch for one in found.epochs] == [2, 3, 4, 5]
        assert sorted({one.key_epoch for one in found.wraps}) == [2, 3, 4, 5]
        [row] = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=10)
        await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, (row.delivery_id,))])
        assert await keys.sweep(3, 1001) == 1
        assert await keys.sweep(3, 1001) == 0
        found = await state(w, bob, *range(1, 6))
        assert [one.key_epoch for one in found.epochs] == [2, 3, 4, 5]
        assert sorted({one.key_epoch for one in found.wraps}) == [3, 4, 5]


async def test_no_number_has_two_keys_when_a_topic_is_made_again(engine: str) -> None:
    """Sends that were sealed for the one before are refused for their seal, and posts to it stay open."""
    async with world(engine) as w:
        bob, carol = await w.join("bob"), await w.join("carol")
        await topic(w, w.owner, bob)
        for number in range(2):
            await make_epoch(w, "alerts", number, w.owner, bob)
        await delete(w)
        keys = w.store.topic_keys
        assert await keys.state(w.mesh.id, "alerts", bob.id, ()) is None
        assert await keys.state(w.mesh.id, "alerts", carol.id, (1, 2)) is None
        found = await state(w, bob, 2)
        assert (found.current, found.rekey_wanted, [one.key_epoch for one in found.wraps]) == (0, False, [2])
        await topic(w, carol)
        found = await state(w, carol)
        assert (found.current, found.floor, found.rekey_wanted, found.wraps) == (2, 2, True, ())
        assert [one.id for one in await keys.missing(w.mesh.id, "alerts", 10)] == [carol.id]
        assert await codes(w, 1, 2, 3) == ["key_epoch_expired", "key_epoch_expired", "key_epoch_unknown"]
        assert not isinstance(await make_epoch(w, "alerts", 2, w.owner, carol), EpochRefused)
        assert await codes(w, 2, 3) == ["key_epoch_expired", None]


async def test_of_a_deleted_topic_the_last_number_is_kept(engine: str) -> None:
    """As long as the deletion is known; what no message needs is swept."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, bob)
        for number in range(3):
            await make_epoch(w, "alerts", number, w.owner, bob)
        await w.store.messages.accept([w.post(w.owner, "alerts", key_epoch=1)], NOW)
        await delete(w)
        keys = w.store.topic_keys
        # One at a time: epochs that stay are in the way of no other.
        while await keys.sweep(3, 1, most=1):
            pass
        found = await keys.state(w.mesh.id, "alerts", bob.id, (1, 2, 3))
        assert found is not None
        assert [one.key_epoch for one in found.epochs] == [1, 3]
        assert [one.key_epoch for one in found.wraps] == [1]
        await topic(w)
        assert (await state(w, bob)).current == 3


async def test_an_epoch_that_is_made_while_the_store_fails_is_whole_or_not_there(engine: str) -> None:
    """Its row, the present number and the wraps are one transaction."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await topic(w, bob)
        wrong = wrap_row(1, bob, w.owner)._replace(nonce=None)  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r"(?i)null"):
            await make_epoch(w, "alerts", 0, w.owner, wraps=(wrap_row(1, w.owner, w.owner), wrong))
        found = await state(w, w.owner, 1)
        assert (found.current, found.epochs, found.wraps) == (0, (), ())
        assert isinstance(await make_epoch(w, "alerts", 0, replace(w.owner), bob), EpochMade)
