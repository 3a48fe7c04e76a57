"""Deliveries: live, owed, windowed, repeated, to slow consumers (docs/spec/broker.md, Delivering)."""

from __future__ import annotations

import asyncio
from typing import Any

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.runtime.errors import StorageUnavailable
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Frame, Link, nothing_else_is_delivered


async def send_all(link: Link, envelopes: list[Frame]) -> list[Frame]:
    """Send pipelined and wait for every result."""
    requests = [await link.send(envelope) for envelope in envelopes]
    return [await link.result(request) for request in requests]


async def pending(broker: Broker, wanted: int) -> None:
    """Return once the store owes exactly so many deliveries."""
    while await broker.context.store.messages.deliveries_pending() != wanted:
        await broker.context.store.ping()


async def test_a_topic_reaches_each_subscriber_once_and_the_offline_one_later() -> None:
    """Everyone subscribed at the moment of commit, but for the sender."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending, bob.connect() as receiving:
            results = await send_all(sending, [ada.envelope("all", str(number)) for number in range(5)])
            here = await receiving.deliveries(5)
            await nothing_else_is_delivered(sending, ada, receiving, bob)
            async with cleo.connect() as late:
                later = await late.deliveries(5)
                await nothing_else_is_delivered(late, cleo, sending, ada)
    expected = [result["broker_message_id"] for result in results]
    assert [frame["broker_message_id"] for frame in here] == expected
    assert [frame["broker_message_id"] for frame in later] == expected


async def test_only_subscribers_receive_a_topic() -> None:
    """A member that has unsubscribed, or never subscribed, is not a recipient."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending, bob.connect() as one, cleo.connect() as two:
            await sending.call("topic_create", topic="ops")
            await one.call("topic_subscribe", topic="ops")
            await two.call("topic_unsubscribe", topic="all")
            await sending.request(ada.envelope("ops"))
            await sending.request(ada.envelope("all"))
            topics = [frame["envelope"]["destination_ref"] for frame in await one.deliveries(2)]
            await nothing_else_is_delivered(two, cleo, sending, ada)
    assert topics == ["ops", "all"]


async def test_unacknowledged_deliveries_are_repeated_on_reconnect() -> None:
    """An ack deletes the row; without it the delivery comes again, under the same id."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            async with bob.connect() as receiving:
                await send_all(sending, [ada.envelope(bob, str(number)) for number in range(3)])
                first = await receiving.deliveries(3)
                await receiving.acknowledge(first[1:2])
                await pending(broker, 2)
            async with bob.connect() as receiving:
                again = await receiving.deliveries(2)
                await receiving.acknowledge(again)
                await pending(broker, 0)
        async with bob.connect() as receiving:
            await receiving.settle()
            assert receiving.waiting("deliver") == []
    assert again == [first[0], first[2]]


async def test_a_late_acknowledgement_counts_on_another_connection() -> None:
    """An ack belongs to the member, not to the connection that the delivery came on."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            async with bob.connect() as receiving:
                await sending.request(ada.envelope(bob))
                frames = await receiving.deliveries(1)
            async with bob.connect() as receiving:
                await receiving.acknowledge(frames)
                await pending(broker, 0)


async def test_an_acknowledgement_of_somebody_elses_delivery_does_nothing() -> None:
    """Only a member's own rows go away by its acks."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, eve = await join_mesh(ada, "bob"), await join_mesh(ada, "eve")
        async with ada.connect() as sending, eve.connect() as other:
            await sending.request(ada.envelope(bob))
            await sending.request(ada.envelope(eve))
            await other.say({"type": "deliver_ack", "delivery_ids": list(range(50))})
            # Eve's own row is gone by the same frame.
            await pending(broker, 1)
        async with bob.connect() as receiving:
            assert len(await receiving.deliveries(1)) == 1


async def test_at_most_a_window_of_deliveries_is_unacknowledged() -> None:
    """256 and no more, until an ack makes room; then every one arrives, in order."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as receiving:
            await send_all(sending, [ada.envelope(bob, str(number)) for number in range(300)])
            first = await receiving.deliveries(256)
            await receiving.settle()
            assert receiving.waiting("deliver") == []
            await receiving.acknowledge(first[:10])
            more = await receiving.deliveries(10)
            await receiving.acknowledge([*first[10:], *more])
            rest = await receiving.deliveries(34)
    order = [frame["history_id"] for frame in (*first, *more, *rest)]
    assert order == sorted(order)
    assert len(set(order)) == 300


async def test_a_backlog_larger_than_memory_arrives_whole_while_more_is_sent() -> None:
    """Reading behind and live pushes together lose nothing and repeat nothing."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            await send_all(sending, [ada.envelope(bob, str(number)) for number in range(700)])
            async with bob.connect() as receiving:
                seen = []
                for _ in range(7):
                    requests = [await sending.send(ada.envelope(bob)) for _ in range(100)]
                    frames = await receiving.deliveries(100)
                    seen += frames
                    await receiving.acknowledge(frames)
                    for request in requests:
                        await sending.result(request)
                while len(seen) < 1400:
                    frames = await receiving.deliveries(1)
                    seen += frames
                    await receiving.acknowledge(frames)
                await pending(broker, 0)
    assert len({frame["delivery_id"] for frame in seen}) == 1400


async def test_what_waited_comes_by_priority_then_age() -> None:
    """now before next before low, oldest first within each."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        order = ["low", "next", "now", "low", "now", "next"]
        async with ada.connect() as sending:
            for priority in order:
                await sending.request(ada.envelope(bob, priority=priority))
        async with bob.connect() as receiving:
            frames = await receiving.deliveries(6)
    assert [frame["envelope"]["priority"] for frame in frames] == sorted(
        order, key=("now", "next", "low").index
    )
    ages = [frame["history_id"] for frame in frames]
    assert all(ages[at] < ages[at + 1] for at in (0, 2, 4))


async def test_a_peer_that_does_not_read_is_closed_and_costs_the_others_nothing() -> None:
    """4005 for the one; the others get everything meanwhile, and the one gets it after reconnecting."""
    # Long enough for a client that reads: it shares this process with the broker.
    limits = Limits(stall_s=2, close_grace_s=5)
    async with running_broker(limits=limits) as broker:
        ada = await create_mesh(broker)
        bob, slow = await join_mesh(ada, "bob"), await join_mesh(ada, "slow")
        async with ada.connect() as sending, bob.connect() as reading, slow.connect() as stuck:
            stuck.websocket.transport.pause_reading()
            for _ in range(60):
                await sending.request(ada.envelope("all", "x" * 200_000))
                await reading.acknowledge(await reading.deliveries(1))
            while broker.context.hub.of_member(slow.mesh_id, slow.member_id):
                assert (await sending.request(ada.envelope(bob)))["status"] == 201
            stuck.websocket.transport.resume_reading()
            code, reason = await stuck.closed()
        assert (code, reason["kind"]) == (4005, "slow_consumer")
        async with slow.connect() as again:
            assert len(await again.deliveries(60)) == 60


async def test_a_peer_that_never_reads_again_is_cut_off() -> None:
    """Not even the close frame is waited for beyond its grace."""
    limits = Limits(stall_s=0.2, close_grace_s=0.2)
    async with running_broker(limits=limits) as broker:
        ada = await create_mesh(broker)
        slow = await join_mesh(ada, "slow")
        async with ada.connect() as sending, slow.connect() as stuck:
            stuck.websocket.transport.pause_reading()
            for _ in range(60):
                await sending.request(ada.envelope(slow, "x" * 200_000))
            while broker.context.hub.of_member(slow.mesh_id, slow.member_id):
                await sending.settle()
            stuck.websocket.transport.abort()


async def test_deliveries_go_on_after_the_store_failed_for_a_while() -> None:
    """A read that failed is repeated by itself: no further traffic is needed."""
    async with running_broker(limits=Limits(retry_s=0.02)) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            await sending.request(ada.envelope(bob))
        failures = FailingReads(broker, times=3)
        async with bob.connect() as receiving:
            assert len(await receiving.deliveries(1)) == 1
        assert failures.left == 0


class FailingReads:
    """Makes the store's reads of deliveries fail a few times."""

    def __init__(self, broker: Broker, times: int) -> None:
        self.left = times
        store = broker.context.store
        real = store.messages.deliveries_due

        async def failing(*args: object, **options: object) -> object:
            if self.left:
                self.left -= 1
                raise StorageUnavailable("a test said so")
            return await real(*args, **options)  # type: ignore[arg-type]

        store.messages.deliveries_due = failing  # type: ignore[method-assign,assignment]


async def test_peers_hear_who_comes_and_goes() -> None:
    """peer_join and peer_leave reach the others, once per member."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        card = {"name": "bob", "member_id": bob.member_id, "pubkey": bob.pubkey}
        async with ada.connect() as link:
            async with bob.connect():
                assert await link.event("peer_join") == card
            assert await link.event("peer_leave") == card


async def test_the_directory_tells_keys_and_presence() -> None:
    """`peers` lists every member, with what is needed to seal to it."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, bob.connect() as other:
            await other.call("profile", summary="builds things", status="busy")
            items = {item["name"]: item for item in (await link.call("peers"))["ok"]["items"]}
            await other.call("profile", visible=False)
            hidden = {item["name"]: item for item in (await link.call("peers"))["ok"]["items"]}["bob"]
    found = items["bob"]
    assert (found["pubkey"], found["x25519_pubkey"]) == (bob.pubkey, bob.identity.x25519_pubkey)
    assert (found["online"], found["summary"], found["presence_status"]) == (True, "builds things", "busy")
    assert (items["owner"]["role"], found["role"], found["status"]) == ("owner", "member", "active")
    assert (hidden["online"], hidden["summary"], hidden["pubkey"]) == (False, None, bob.pubkey)


async def test_connected_members_hear_of_a_new_topic_once() -> None:
    """Their daemons refuse sends to unknown topics; an existing topic causes no event."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as making, bob.connect() as hearing:
            await making.call("topic_create", topic="ops", mode="queue")
            assert await hearing.event("topic_created") == {"topic": "ops", "mode": "queue"}
            assert not (await making.call("topic_create", topic="ops"))["ok"]["created"]
            await making.call("topic_create", topic="later")
            assert await hearing.event("topic_created") == {"topic": "later", "mode": "topic"}


async def test_topics_are_made_and_listed() -> None:
    """Creating is idempotent and tells the mode; the list says that bodies are not sealed yet."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            made = (await link.call("topic_create", topic="ops"))["ok"]
            again = (await link.call("topic_create", topic="ops"))["ok"]
            await link.call("topic_subscribe", topic="ops")
            await link.call("topic_subscribe", topic="ops")
            items = {item["topic"]: item for item in (await link.call("topic_list"))["ok"]["items"]}
            missing = await link.call("topic_subscribe", topic="nowhere")
    assert made == {"topic": "ops", "mode": "topic", "created": True}
    assert again == {"topic": "ops", "mode": "topic", "created": False}
    assert (items["ops"]["subscribed"], items["ops"]["subscribers"], items["ops"]["sealed"]) == (
        True,
        1,
        False,
    )
    assert set(items) == {"all", "ops"}
    assert missing["error"]["code"] == "topic_not_found"


async def test_calls_with_bad_parameters_get_a_code_and_a_sentence() -> None:
    """No parameter of any call can break the connection."""
    bad: list[tuple[str, Frame, str]] = [
        ("nonsense", {}, "unknown_method"),
        ("topic_create", {}, "invalid_topic"),
        ("topic_create", {"topic": "UPPER"}, "invalid_topic"),
        ("topic_create", {"topic": "x" * 64}, "invalid_topic"),
        ("topic_create", {"topic": 7}, "invalid_topic"),
        ("topic_create", {"topic": "ops", "mode": "sometimes"}, "invalid_mode"),
        ("topic_create", {"topic": "ops", "mode": ["topic"]}, "invalid_mode"),
        ("topic_create", {"topic": "ops", "colour": 1}, "unknown_field"),
        ("topic_subscribe", {"topic": None}, "invalid_topic"),
        ("topic_list", {"upto": 1}, "unknown_field"),
        ("topic_list", {"limit": -1}, "invalid_params"),
        ("topic_list", {"after": 1}, "invalid_params"),
        ("topic_list", {"counts": 1}, "invalid_params"),
        ("profile", {"summary": 3}, "invalid_params"),
        ("profile", {"summary": "x" * 513}, "invalid_params"),
        ("profile", {"status": "a\u001bb"}, "invalid_params"),
        ("profile", {"visible": 1}, "invalid_params"),
        ("profile", {"sessions": [{"name": "A B"}]}, "invalid_params"),
        ("history", {"after": -1}, "invalid_params"),
        ("history", {"before": "x"}, "invalid_params"),
        ("history", {"limit": 501}, "invalid_params"),
        ("history", {"destination": "#UPPER"}, "invalid_topic"),
        ("history", {"destination": "queue:"}, "invalid_topic"),
        ("history", {"destination": "bob"}, "invalid_key"),
        ("history", {"destination": 7}, "invalid_params"),
        ("history", {"member_id": "x"}, "unknown_field"),
        ("send_status", {}, "invalid_params"),
        ("send_status", {"client_message_ids": "x"}, "invalid_params"),
        ("send_status", {"client_message_ids": ["x"] * 257}, "invalid_params"),
        ("send_status", {"client_message_ids": [1]}, "invalid_client_message_id"),
    ]
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            for method, params, code in bad:
                error = (await link.call(method, **params))["error"]
                assert error["code"] == code, (method, params)
                assert error["message"]
            assert "ok" in await link.call("topic_list")


async def test_a_message_whose_commit_nobody_heard_of_is_delivered_all_the_same() -> None:
    """The retry is a duplicate, which pushes nothing; the recipient need not reconnect for it."""
    async with running_broker() as broker:
        owner = await create_mesh(broker)
        bob = await join_mesh(owner, "bob")
        store: Any = broker.context.store
        accept = store.messages.accept

        async def cut_off(*given: Any) -> Any:
            store.messages.accept = accept
            await accept(*given)
            raise StorageUnavailable("the connection was lost behind the commit")

        async with owner.connect() as sender, bob.connect() as receiver:
            await receiver.settle()
            store.messages.accept = cut_off
            envelope = owner.envelope(bob)
            assert (await sender.request(envelope))["status"] == 503
            again = await sender.request(envelope)
            assert (again["status"], again["duplicate"]) == (200, True)
            [delivery] = await asyncio.wait_for(receiver.deliveries(1), WAIT_S)
            assert delivery["broker_message_id"] == again["broker_message_id"]
