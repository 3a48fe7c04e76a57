"""Keys of topics at a broker: events, refusals, and the stored bytes (docs/spec/broker.md, Topic keys)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.protocol.envelope import Seal
from claudemesh.protocol.sealing import BoxKeys
from claudemesh.protocol.statements import sign_statement
from claudemesh.protocol.topic_key_replies import TopicKeys, topic_keys
from claudemesh.protocol.topic_keys import (
    TopicKey,
    make_wrap,
    open_wrap,
    seal_secret,
    sign_epoch,
)
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.postgres import empty_database
from tests.support.wspeer import Frame, Link, Peer

both = pytest.mark.parametrize("engine", ["sqlite", "postgres"])
# A question that is not answered goes to others at once.
IMPATIENT = Limits(key_answer_s=0.05)
SLOW = Limits(key_answer_s=600)


@asynccontextmanager
async def broker_on(engine: str, limits: Limits = SLOW) -> AsyncGenerator[Broker]:
    """A broker on an engine, that asks a holder once by default."""
    if engine == "sqlite":
        async with running_broker(limits=limits) as made:
            yield made
        return
    async with empty_database() as url, running_broker(limits=limits, database_url=url) as made:
        yield made


def wrap(key: TopicKey, by: Peer, to: Peer) -> Frame:
    """The key wrapped by one member for another, as a call carries it."""
    shared = BoxKeys(by.identity.x25519_privkey).shared(to.identity.x25519_pubkey)
    made = make_wrap(
        by.identity,
        by.mesh_id,
        key,
        recipient=to.pubkey,
        shared=shared,
        nonce=secrets.token_bytes(24),
    )
    return made.to_dict()


async def make(
    link: Link, by: Peer, *to: Peer, topic: str = "all", expected: int = 0, **changes: Any
) -> tuple[TopicKey, Frame]:
    """Make the epoch after `expected`; returns its key and the reply."""
    key = TopicKey(topic, expected + 1, secrets.token_bytes(32))
    epoch = sign_epoch(by.identity, by.mesh_id, key)
    params: dict[str, Any] = {
        "topic": topic,
        "expected": expected,
        "epoch": epoch.to_dict(),
        "wraps": [wrap(key, by, one) for one in (by, *to)],
    }
    return key, await link.call("topic_epoch_create", **(params | changes))


async def keys_of(link: Link, topic: str = "all", **params: Any) -> TopicKeys:
    """The keys of a topic as the daemon of the caller reads them."""
    reply = await link.call("topic_key", topic=topic, **params)
    found = topic_keys(reply.get("ok"))
    assert found.faults == ()
    return found


def sealed(by: Peer, key: TopicKey, text: bytes, kind: str = "topic", **changes: Any) -> Frame:
    """A post that is sealed with the key."""
    nonce = secrets.token_bytes(24)
    fields: dict[str, Any] = {
        "destination_kind": kind,
        "body": seal_secret(text, nonce, key.key),
        "seal": Seal("secretbox", nonce, by.identity.key_id, key_epoch=key.key_epoch),
    }
    return by.envelope(key.topic, **(fields | changes))


def code(reply: Frame) -> str:
    """The code of a call that failed."""
    found: str = reply["error"]["code"]
    return found


async def members(broker: Broker, *names: str) -> Sequence[Peer]:
    """The owner of a mesh, and members of it."""
    owner = await create_mesh(broker)
    return [owner, *[await join_mesh(owner, name) for name in names]]


@both
async def test_a_member_opens_with_its_wrap_what_another_has_sealed(engine: str) -> None:
    """The first poster makes the epoch and wraps for all; the broker holds no byte of the text."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one, bob.connect() as two:
            before = await keys_of(one)
            assert (before.current, before.mode) == (None, "topic")
            assert sorted(each.name for each in before.missing) == ["bob", "owner"]
            key, reply = await make(one, ada, bob)
            assert reply["ok"] == {"key_epoch": 1}
            assert await two.event("topic_key_changed") == {"topic": "all", "key_epoch": 1}
            assert await two.event("topic_key_added") == {"topic": "all", "key_epoch": 1}
            found = await keys_of(two)
            assert found.current is not None and found.current.created_by == ada.pubkey
            shared = BoxKeys(bob.identity.x25519_privkey).shared(ada.identity.x25519_pubkey)
            assert open_wrap(ada.mesh_id, found.wraps[0], shared) == key
            assert (found.missing, found.rekey_wanted) == ((), False)
            assert (await one.request(sealed(ada, key, b"canary")))["status"] == 201
            [frame] = await two.deliveries(1)
            envelope = frame["envelope"]
            assert b"canary" not in str(envelope).encode()
            [row] = await broker.context.store.messages.deliveries_due(
                ada.mesh_id, bob.member_id, exclude=(), limit=9
            )
            assert b"canary" not in row.envelope
            listed = (await two.call("topic_list"))["ok"]["items"]
            assert [(each["sealed"], each["key_epoch"], each["members_without_key"]) for each in listed] == [
                (True, 1, 0)
            ]


@both
async def test_the_loser_of_a_race_takes_the_epoch_of_the_winner(engine: str) -> None:
    """Its own one is refused; the same one once more is not."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one, bob.connect() as two:
            _, first = await make(one, ada, bob)
            _, second = await make(two, bob, ada)
            assert (first["ok"], code(second)) == ({"key_epoch": 1}, "key_epoch_conflict")
            found = await keys_of(two)
            assert found.current is not None and found.current.created_by == ada.pubkey
            again = await one.call(
                "topic_epoch_create", topic="all", expected=0, epoch=found.current.to_dict(), wraps=[]
            )
            assert again["ok"] == {"key_epoch": 1}


@both
async def test_an_epoch_whose_maker_is_gone_before_its_wraps_is_followed_by_another(engine: str) -> None:
    """Subscribers are listed as without a wrap, and any of them makes the next one."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one:
            await make(one, ada, wraps=[])
        async with bob.connect() as two:
            found = await keys_of(two)
            assert found.current is not None and found.wraps == ()
            assert sorted(each.name for each in found.missing) == ["bob", "owner"]
            key, _ = await make(two, bob, ada, expected=1)
            assert (await two.request(sealed(bob, key, b"x")))["status"] == 201


@both
async def test_a_new_subscriber_s_key_is_asked_for_from_a_holder(engine: str) -> None:
    """The holder wraps it; other members are not asked."""
    async with broker_on(engine) as broker:
        ada, bob, cleo = await members(broker, "bob", "cleo")
        async with ada.connect() as one, bob.connect() as two, cleo.connect() as three:
            await one.call("topic_create", topic="news", mode="topic")
            await one.call("topic_subscribe", topic="news")
            key, _ = await make(one, ada, topic="news")
            await two.call("topic_subscribe", topic="news")
            wanted = await one.event("topic_key_wanted")
            assert wanted == {"topic": "news", "key_epoch": 1, "member_id": bob.member_id}
            added = await one.call("topic_wrap_add", topic="news", key_epoch=1, wraps=[wrap(key, ada, bob)])
            assert added["ok"] == {"added": 1}
            await two.event("topic_key_added")
            assert len((await keys_of(two, "news")).wraps) == 1
            await three.settle()
            assert {frame["event"] for frame in three.waiting("event")} & {"topic_key_wanted"} == set()
            # A member that only posts is owed a wrap too, and so is one whose wraps do not open.
            assert (await keys_of(three, "news", missing=False)).wraps == ()
            assert (await one.event("topic_key_wanted"))["member_id"] == cleo.member_id
            await keys_of(two, "news", wanted=True)
            assert (await one.event("topic_key_wanted"))["member_id"] == bob.member_id


async def test_another_holder_is_asked_when_one_does_not_answer() -> None:
    """Three at a time: with four holders the fourth is asked later."""
    async with running_broker(limits=IMPATIENT) as broker:
        ada, *others = await members(broker, "bob", "cleo", "dora", "eve")
        *holders, eve = others
        async with ada.connect() as one, eve.connect() as last:
            await make(one, ada, *holders)
            async with (
                holders[0].connect() as two,
                holders[1].connect() as three,
                holders[2].connect() as four,
            ):
                await keys_of(last)
                for link in (one, two, three, four):
                    assert (await link.event("topic_key_wanted"))["member_id"] == eve.member_id


async def test_the_only_holder_is_asked_again() -> None:
    """The first question may have been lost with its connection or its process."""
    async with running_broker(limits=IMPATIENT) as broker:
        ada, bob, eve = await members(broker, "bob", "eve")
        async with ada.connect() as one:
            await make(one, ada, bob)
        async with eve.connect() as last, bob.connect() as holder:
            await keys_of(last)
            for _ in range(2):
                assert (await holder.event("topic_key_wanted"))["member_id"] == eve.member_id


@both
@pytest.mark.parametrize("act", ["unsubscribe", "leave", "revoke", "rekey"])
async def test_the_next_epoch_is_asked_for_when_a_member_goes(engine: str, act: str) -> None:
    """From a holder, that makes it; the one that went gets no wrap of it."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one, bob.connect() as two:
            await make(one, ada, bob)
            if act == "unsubscribe":
                await two.call("topic_unsubscribe", topic="all")
            elif act == "leave":
                await two.call("leave")
            elif act == "rekey":
                assert (await two.call("topic_rekey", topic="all"))["ok"]["rekey_wanted"] is True
            else:
                statement = sign_statement(
                    ada.identity,
                    "revocation",
                    mesh_id=ada.mesh_id,
                    subject=bob.member_id,
                    at_ms=broker.context.clock.wall_ms(),
                    pubkey=bob.pubkey,
                )
                assert "ok" in await one.call("member_revoke", statement=statement.to_dict())
            assert await one.event("topic_rekey_wanted") == {"topic": "all"}
            if act == "unsubscribe":
                await two.settle()
                told = {frame["event"] for frame in two.waiting("event")}
                assert "topic_rekey_wanted" not in told
            assert (await keys_of(one)).rekey_wanted
            await make(one, ada, bob, expected=1)
            found = await keys_of(one)
            assert (found.rekey_wanted, found.current and found.current.key_epoch) == (False, 2)
            holders = await broker.context.store.topic_keys.holders(ada.mesh_id, "all", [bob.member_id])
            state = await broker.context.store.topic_keys.state(ada.mesh_id, "all", bob.member_id, (2,))
            assert state is not None
            assert any(each.key_epoch == 2 for each in state.wraps) == (act == "rekey")
            assert (bob.member_id in holders) == (act in ("rekey", "unsubscribe"))


@both
async def test_a_send_under_an_epoch_out_of_the_window_is_refused(engine: str) -> None:
    """A refusal keeps no id: the same id is accepted when it is sealed again."""
    async with broker_on(engine) as broker:
        [ada] = await members(broker)
        async with ada.connect() as one:
            keys = [(await make(one, ada, expected=number))[0] for number in range(4)]
            statuses = [(await one.request(sealed(ada, key, b"x")))["status"] for key in keys]
            assert statuses == [422, 201, 201, 201]
            refused = await one.request(sealed(ada, keys[0], b"x", client_message_id="again"))
            assert (refused["status"], refused["error"]) == (422, "key_epoch_expired")
            assert (await one.request(sealed(ada, keys[3], b"x", client_message_id="again")))["status"] == 201
            # An accepted one is answered from its row, also when its epoch is gone.
            accepted = sealed(ada, keys[1], b"x")
            assert (await one.request(accepted))["status"] == 201
            await make(one, ada, expected=4)
            assert (await one.request(accepted))["status"] == 200
            unknown = await one.request(sealed(ada, TopicKey("all", 9, bytes(32)), b"x"))
            assert (unknown["status"], unknown["error"]) == (503, "key_epoch_unknown")


@both
async def test_a_queue_s_message_waits_for_a_worker_that_can_open_it(engine: str) -> None:
    """It is given as soon as the worker has a wrap of its epoch, which a holder was asked for."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one, bob.connect() as two:
            await one.call("topic_create", topic="jobs", mode="queue")
            first, _ = await make(one, ada, topic="jobs")
            assert (await one.request(sealed(ada, first, b"job", "queue")))["status"] == 201
            await make(one, ada, topic="jobs", expected=1)
            await two.call("topic_subscribe", topic="jobs")
            asked = [await one.event("topic_key_wanted") for _ in range(2)]
            assert sorted(each["key_epoch"] for each in asked) == [1, 2]
            await two.settle()
            assert two.waiting("deliver") == []
            await one.call("topic_wrap_add", topic="jobs", key_epoch=1, wraps=[wrap(first, ada, bob)])
            [frame] = await two.deliveries(1)
            envelope = frame["envelope"]
            assert envelope["seal"]["epoch"] == 1


@both
async def test_hostile_wraps_and_epochs_are_refused(engine: str) -> None:
    """Of others, of strangers, of other topics and meshes, malformed, and too many."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one, bob.connect() as two:
            await one.call("topic_create", topic="news", mode="topic")
            key, _ = await make(one, ada)
            of_another = [wrap(key, ada, bob)]
            reply = await two.call("topic_wrap_add", topic="all", key_epoch=1, wraps=of_another)
            assert code(reply) == "invalid_params"
            for changes in ({"nonce": "AAAA"}, {"ciphertext": ""}, {"recipient": "x"}, {"key_epoch": 2}):
                wrong = [{**wrap(key, bob, ada), **changes}]
                reply = await two.call("topic_wrap_add", topic="all", key_epoch=1, wraps=wrong)
                assert code(reply).startswith("invalid_")
            stranger = {**wrap(key, bob, ada), "recipient": "ab" * 32}
            reply = await two.call("topic_wrap_add", topic="all", key_epoch=1, wraps=[stranger])
            assert reply["ok"] == {"added": 0}
            many = [wrap(key, bob, ada)] * 501
            assert (
                code(await two.call("topic_wrap_add", topic="all", key_epoch=1, wraps=many))
                == "invalid_params"
            )
            reply = await two.call("topic_wrap_add", topic="news", key_epoch=1, wraps=[wrap(key, bob, ada)])
            assert code(reply) == "key_epoch_unknown"
            other = sign_epoch(bob.identity, bob.mesh_id, TopicKey("all", 2, bytes(32))).to_dict()
            for topic, changes in (
                ("news", {}),
                ("all", {"commitment": "00" * 32}),
                ("all", {"created_by": ada.pubkey}),
            ):
                _, reply = await make(two, bob, topic=topic, expected=1, epoch={**other, **changes})
                assert code(reply) == "bad_signature"
            outside = await create_mesh(broker, "elsewhere", "eve")
            foreign = sign_epoch(outside.identity, bob.mesh_id, TopicKey("all", 2, bytes(32))).to_dict()
            _, reply = await make(two, bob, expected=1, epoch=foreign)
            assert code(reply) == "not_a_member"
            for params in (
                {"topic": "nowhere"},
                {"topic": "all", "key_epochs": [0]},
                {"topic": "all", "x": 1},
            ):
                assert "error" in await two.call("topic_key", **params)
            assert code(await two.call("topic_rekey", topic="nowhere")) == "topic_not_found"
            assert (await keys_of(two)).current == (await keys_of(one)).current


@both
async def test_an_epoch_of_another_member_is_registered_again_after_a_restore(engine: str) -> None:
    """By a holder, with its number: sends under it are accepted then."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        key = TopicKey("all", 5, secrets.token_bytes(32))
        epoch = sign_epoch(ada.identity, ada.mesh_id, key)
        async with bob.connect() as two:
            assert (await two.request(sealed(bob, key, b"x")))["error"] == "key_epoch_unknown"
            _, reply = await make(two, bob, epoch=epoch.to_dict(), wraps=[wrap(key, bob, ada)])
            assert reply["ok"] == {"key_epoch": 5}
            assert (await two.request(sealed(bob, key, b"x")))["status"] == 201


@both
async def test_a_member_that_was_revoked_is_answered_nothing(engine: str) -> None:
    """Its status counts, even on a connection that is still open."""
    async with broker_on(engine) as broker:
        ada, bob = await members(broker, "bob")
        async with ada.connect() as one, bob.connect() as two:
            key, _ = await make(one, ada, bob)
            await broker.context.store.members.set_status(ada.mesh_id, bob.member_id, "revoked")
            _, reply = await make(two, bob, expected=1)
            assert code(reply) == "not_a_member"
            reply = await two.call("topic_wrap_add", topic="all", key_epoch=1, wraps=[wrap(key, bob, ada)])
            assert code(reply) == "not_a_member"
