"""Accepting: at most once per sender and id, all side effects or none (docs/spec/broker.md, Promises)."""

from __future__ import annotations

import asyncio
import random

import pytest

from claudemesh.broker.store.types import Accepted, Ack, Existing, Failed, Refused
from claudemesh.runtime.errors import StorageUnavailable
from tests.support.stores import ENGINES, NOW, World, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def test_an_accepted_dm_leaves_dedupe_history_and_one_delivery(engine: str) -> None:
    """The recipient is owed the message; the id is known."""
    async with world(engine) as w:
        bob = await w.join("bob")
        send = w.dm(w.owner, bob)
        [outcome] = await w.store.messages.accept([send], NOW)
        assert isinstance(outcome, Accepted)
        assert [delivery.recipient_member_id for delivery in outcome.deliveries] == [bob.id]
        row = (await w.store.messages.lookup([send.key]))[send.key]
        assert (row.broker_message_id, row.history_id) == (send.broker_message_id, outcome.history_id)
        assert (row.request_fingerprint, row.first_seen_at) == (send.request_fingerprint, NOW)
        [due] = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=10)
        assert (due.envelope, due.sender_name, due.accepted_at) == (send.envelope, "alice", NOW)


async def test_the_same_id_again_is_existing_and_writes_nothing(engine: str) -> None:
    """With any fingerprint; the caller compares."""
    async with world(engine) as w:
        bob = await w.join("bob")
        first = w.dm(w.owner, bob, client_message_id="x")
        await w.store.messages.accept([first], NOW)
        again = w.dm(w.owner, bob, client_message_id="x", request_fingerprint=bytes([1]) * 32)
        [outcome] = await w.store.messages.accept([again], NOW + 5)
        assert isinstance(outcome, Existing)
        assert outcome.row.broker_message_id == first.broker_message_id
        assert await w.owed(bob) == [first.broker_message_id]


async def test_within_a_batch_the_first_of_an_id_wins(engine: str) -> None:
    """The later ones get the winner's row."""
    async with world(engine) as w:
        bob = await w.join("bob")
        sends = [w.dm(w.owner, bob, client_message_id="x") for _ in range(3)]
        first, *rest = await w.store.messages.accept(sends, NOW)
        assert isinstance(first, Accepted)
        for outcome in rest:
            assert isinstance(outcome, Existing)
            assert outcome.row.broker_message_id == sends[0].broker_message_id
            assert outcome.row.history_id == first.history_id


async def test_within_a_batch_a_refusal_leaves_its_id_to_the_next(engine: str) -> None:
    """The first of an id that is not refused wins, and the later ones get its row."""
    async with world(engine) as w:
        bob = await w.join("bob")
        sends = [
            w.post(w.owner, "nowhere", client_message_id="x"),
            w.post(w.owner, "nowhere", client_message_id="x"),
            w.dm(w.owner, bob, client_message_id="y"),
            w.dm(w.owner, bob, client_message_id="x"),
            w.dm(w.owner, bob, client_message_id="x"),
            w.post(w.owner, "nowhere", client_message_id="x"),
        ]
        outcomes = await w.store.messages.accept(sends, NOW)
        assert outcomes[:2] == [Refused("destination_not_found")] * 2
        assert [type(outcome) for outcome in outcomes[2:4]] == [Accepted, Accepted]
        for outcome in outcomes[4:]:
            assert isinstance(outcome, Existing)
            assert outcome.row.broker_message_id == sends[3].broker_message_id
        assert await w.owed(bob) == [sends[2].broker_message_id, sends[3].broker_message_id]


@pytest.mark.parametrize("size", [1, 2, 128])
async def test_a_send_is_decided_alike_alone_and_among_others(engine: str, size: int) -> None:
    """Accepted, known and refused sends, in batches of several sizes."""
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        await w.store.members.set_status(w.mesh.id, eve.id, "revoked")
        await w.store.topics.create(w.mesh.id, "jobs", "queue", w.owner.id, NOW)
        known = w.dm(w.owner, bob, client_message_id="known")
        await w.store.messages.accept([known], NOW)
        sends = [
            w.dm(w.owner, bob),
            w.post(w.owner, "all"),
            w.to_queue(w.owner, "jobs"),
            w.dm(w.owner, bob, client_message_id="known", request_fingerprint=bytes(31) + b"x"),
            w.dm(eve, bob),
            w.dm(w.owner, eve),
            w.dm(w.owner, bob)._replace(destination_ref="0" * 64),
            w.post(w.owner, "nowhere"),
        ]
        outcomes = []
        for send in sends:
            others = [w.dm(bob, w.owner) for _ in range(size - 1)]
            *before, outcome = await w.store.messages.accept([*others, send], NOW)
            assert all(isinstance(other, Accepted) for other in before)
            outcomes.append(outcome)
        dm, post, job, again, *refused = outcomes
        assert isinstance(dm, Accepted) and [one.recipient_member_id for one in dm.deliveries] == [bob.id]
        assert isinstance(post, Accepted) and [one.recipient_member_id for one in post.deliveries] == [bob.id]
        assert isinstance(job, Accepted) and list(job.deliveries) == []
        assert isinstance(again, Existing)
        assert again.row.broker_message_id == known.broker_message_id
        assert again.row.request_fingerprint == known.request_fingerprint
        assert refused == [Refused("not_a_member"), *[Refused("destination_not_found")] * 3]
        found = await w.store.messages.lookup([send.key for send in sends])
        assert set(found) == {send.key for send in sends[:4]}
        assert await w.owed(bob) == [known.broker_message_id, *(send.broker_message_id for send in sends[:2])]


async def test_a_sender_without_a_mesh_is_no_member(engine: str) -> None:
    """Nor is one of another mesh; the neighbours do not notice."""
    async with world(engine) as w:
        strange = "01899e2d-0000-7000-8000-00000000ffff"
        sends = [w.dm(w.owner, w.owner) for _ in range(3)]
        sends[0] = sends[0]._replace(key=sends[0].key._replace(mesh_id=strange))
        sends[1] = sends[1]._replace(key=sends[1].key._replace(sender_member_id=strange))
        outcomes = await w.store.messages.accept(sends, NOW)
        assert outcomes[:2] == [Refused("not_a_member")] * 2
        assert isinstance(outcomes[2], Accepted)


async def test_a_batch_of_nothing_is_nothing(engine: str) -> None:
    """Neither an error nor a transaction."""
    async with world(engine) as w:
        assert list(await w.store.messages.accept([], NOW)) == []
        assert await w.store.messages.lookup([]) == {}
        assert await w.store.messages.acknowledge([]) == 0


async def test_an_id_belongs_to_its_sender(engine: str) -> None:
    """Two senders may use the same one; both messages are accepted."""
    async with world(engine) as w:
        bob, carol = await w.join("bob"), await w.join("carol")
        sends = [w.dm(sender, carol, client_message_id="deploy-42") for sender in (w.owner, bob)]
        outcomes = await w.store.messages.accept(sends, NOW)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert await w.owed(carol) == [send.broker_message_id for send in sends]


async def test_a_refusal_leaves_nothing_and_frees_nothing(engine: str) -> None:
    """Phase check: no such member, no such topic, a sender that is revoked; neighbours are accepted."""
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        await w.store.members.set_status(w.mesh.id, eve.id, "revoked")
        nobody = replace(bob, ed25519_pubkey="0" * 64)
        sends = [
            w.dm(w.owner, nobody),
            w.post(w.owner, "nowhere"),
            w.dm(w.owner, eve),
            w.dm(eve, bob),
            w.dm(w.owner, bob),
        ]
        outcomes = await w.store.messages.accept(sends, NOW)
        assert outcomes[:4] == [
            Refused("destination_not_found"),
            Refused("destination_not_found"),
            Refused("destination_not_found"),
            Refused("not_a_member"),
        ]
        assert isinstance(outcomes[4], Accepted)
        assert set(await w.store.messages.lookup([send.key for send in sends])) == {sends[4].key}


async def test_a_refused_id_may_be_used_once_its_destination_exists(engine: str) -> None:
    """No rejection leaves a dedupe row behind."""
    async with world(engine) as w:
        send = w.post(w.owner, "later")
        assert await w.store.messages.accept([send], NOW) == [Refused("destination_not_found")]
        await w.store.topics.create(w.mesh.id, "later", "topic", w.owner.id, NOW)
        [outcome] = await w.store.messages.accept([send], NOW)
        assert isinstance(outcome, Accepted)


async def test_a_topic_post_is_owed_to_every_subscriber_but_its_sender(engine: str) -> None:
    """Every subscriber at the moment of commit; the revoked get nothing."""
    async with world(engine) as w:
        members = [await w.join(name) for name in ("bob", "carol", "dave", "eve")]
        bob, carol, dave, eve = members
        await w.store.topics.create(w.mesh.id, "news", "topic", w.owner.id, NOW)
        for one in (w.owner, bob, carol, eve):
            assert await w.store.topics.subscribe(w.mesh.id, "news", one.id, NOW)
        await w.store.members.set_status(w.mesh.id, eve.id, "revoked")
        [outcome] = await w.store.messages.accept([w.post(w.owner, "news")], NOW)
        assert isinstance(outcome, Accepted)
        assert {row.recipient_member_id for row in outcome.deliveries} == {bob.id, carol.id}
        assert await w.owed(dave) == []


async def test_everybody_is_subscribed_to_all(engine: str) -> None:
    """From the moment of joining, the owner too."""
    async with world(engine) as w:
        bob = await w.join("bob")
        post = w.post(bob, "all")
        await w.store.messages.accept([post], NOW)
        assert await w.owed(w.owner) == [post.broker_message_id]


async def test_a_dm_to_oneself_is_delivered_to_oneself(engine: str) -> None:
    """Nothing is special about it."""
    async with world(engine) as w:
        send = w.dm(w.owner, w.owner)
        await w.store.messages.accept([send], NOW)
        assert await w.owed(w.owner) == [send.broker_message_id]


async def test_history_ids_ascend_in_the_order_of_the_batch_and_are_never_reused(engine: str) -> None:
    """Also after everything was acknowledged."""
    async with world(engine) as w:
        bob = await w.join("bob")
        seen: list[int] = []
        for _ in range(3):
            outcomes = await w.store.messages.accept([w.dm(w.owner, bob) for _ in range(4)], NOW)
            accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
            seen += [outcome.history_id for outcome in accepted]
            delivered = tuple(row.delivery_id for outcome in accepted for row in outcome.deliveries)
            assert await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, delivered)]) == 4
        assert seen == sorted(set(seen))


async def test_a_message_that_cannot_be_written_fails_alone(engine: str) -> None:
    """One bad message must not sink its neighbours."""
    async with world(engine) as w:
        bob = await w.join("bob")
        good = [w.dm(w.owner, bob) for _ in range(4)]
        # Two messages cannot have one broker id: the second cannot be written.
        bad = w.dm(w.owner, bob, broker_message_id=good[0].broker_message_id)
        outcomes = await w.store.messages.accept([*good[:2], bad, *good[2:]], NOW)
        assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted, Failed, Accepted, Accepted]
        assert await w.owed(bob) == [send.broker_message_id for send in good]
        assert bad.key not in await w.store.messages.lookup([bad.key])


@pytest.mark.parametrize(
    "point",
    [
        "accept.after_dedupe_rows",
        "accept.after_bodies",
        "accept.after_history",
        "accept.after_deliveries",
        "accept.before_commit",
    ],
)
async def test_a_failure_after_any_of_the_inserts_leaves_none(engine: str, point: str) -> None:
    """Dedupe, body, history and deliveries commit together, or not at all."""
    async with world(engine) as w:
        bob = await w.join("bob")
        send = w.dm(w.owner, bob)
        async with w.failing(point):
            with pytest.raises((OSError, StorageUnavailable), match="crash"):
                await w.store.messages.accept([send], NOW)
        assert await w.store.messages.lookup([send.key]) == {}
        assert await w.store.messages.deliveries_pending() == 0
        [outcome] = await w.store.messages.accept([send], NOW)
        assert isinstance(outcome, Accepted)


async def test_concurrent_accepts_of_one_id_have_one_winner(engine: str) -> None:
    """The same id at once: one accepted, the rest existing."""
    async with world(engine) as w:
        bob = await w.join("bob")
        sends = [w.dm(w.owner, bob, client_message_id="x") for _ in range(8)]
        outcomes = await asyncio.gather(*(w.store.messages.accept([send], NOW) for send in sends))
        kinds = [type(outcome) for [outcome] in outcomes]
        assert sorted(kind.__name__ for kind in kinds) == ["Accepted"] + ["Existing"] * 7
        assert len(await w.owed(bob)) == 1


async def test_random_histories_agree_with_a_model(engine: str) -> None:
    """A seeded run of accepts and acks against a dictionary: same outcomes, same debts."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    async with world(engine) as w:
        people = [w.owner, *[await w.join(name) for name in ("bob", "carol")]]
        accepted: dict[tuple[str, str], str] = {}
        owed: dict[str, list[tuple[int, str]]] = {one.id: [] for one in people}
        for _ in range(60):
            if chance.random() < 0.3:
                await _acknowledge_some(w, chance, owed)
                continue
            batch = []
            for _ in range(chance.randint(1, 6)):
                sender = chance.choice(people)
                client_message_id = f"id{chance.randrange(30)}"
                if chance.random() < 0.5:
                    batch.append(w.dm(sender, chance.choice(people), client_message_id=client_message_id))
                else:
                    batch.append(w.post(sender, "all", client_message_id=client_message_id))
            for send, outcome in zip(batch, await w.store.messages.accept(batch, NOW), strict=True):
                key = (send.key.sender_member_id, send.key.client_message_id)
                if key in accepted:
                    assert isinstance(outcome, Existing)
                    assert outcome.row.broker_message_id == accepted[key]
                else:
                    assert isinstance(outcome, Accepted)
                    accepted[key] = send.broker_message_id
                    for row in outcome.deliveries:
                        owed[row.recipient_member_id].append((row.delivery_id, send.broker_message_id))
            for one in people:
                assert await w.owed(one, 500) == [client_message_id for _, client_message_id in owed[one.id]]


async def _acknowledge_some(w: World, chance: random.Random, owed: dict[str, list[tuple[int, str]]]) -> None:
    member_id = chance.choice(list(owed))
    chosen = [entry for entry in owed[member_id] if chance.random() < 0.5]
    ids = tuple(delivery_id for delivery_id, _ in chosen)
    assert await w.store.messages.acknowledge([Ack(w.mesh.id, member_id, ids)]) == len(ids)
    owed[member_id] = [entry for entry in owed[member_id] if entry not in chosen]
