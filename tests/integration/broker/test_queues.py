"""Work queues: one subscriber at a time, fair, returned on leaving (docs/spec/broker.md, Work queues)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from claudemesh.broker.messages.work_queues import HELD
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Frame, Link, Peer


async def make_queue(link: Link, *subscribers: Link) -> None:
    """Make the queue `jobs`; these take from it."""
    assert (await link.call("topic_create", topic="jobs", mode="queue"))["ok"]["mode"] == "queue"
    for subscriber in subscribers:
        assert await subscriber.work("jobs")


async def put(sender: Peer, link: Link, count: int) -> list[str]:
    """Send so many to the queue; returns the broker's ids."""
    results = [
        await link.request(sender.envelope("jobs", f"job {number}", destination_kind="queue"))
        for number in range(count)
    ]
    assert [result["status"] for result in results] == [201] * count, results[0]
    return [result["broker_message_id"] for result in results]


async def take(link: Link, count: int) -> list[Frame]:
    """Take so many and acknowledge them one by one, as a worker does."""
    frames = []
    async with asyncio.timeout(WAIT_S):
        for _ in range(count):
            frames += await link.deliveries(1)
            await link.acknowledge(frames[-1:])
    return frames


def ids(frames: list[Frame]) -> list[str]:
    return [frame["broker_message_id"] for frame in frames]


async def nothing_is_owed(context: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while await context.store.messages.deliveries_pending():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.01)


async def test_each_message_goes_to_one_subscriber_and_they_take_turns() -> None:
    """Of two that keep up each gets half; no message goes to two."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo, dora = [await join_mesh(ada, name) for name in ("bob", "cleo", "dora")]
        async with (
            ada.connect() as sending,
            bob.connect() as one,
            cleo.connect() as two,
            dora.connect() as idle,
        ):
            await make_queue(sending, one, two)
            sent = await put(ada, sending, 20)
            first, second = await asyncio.gather(take(one, 10), take(two, 10))
            assert sorted(ids(first) + ids(second)) == sorted(sent)
            await nothing_is_owed(broker.context)
            await idle.settle()
            assert idle.waiting("deliver") == []


async def test_a_message_waits_for_the_first_subscriber() -> None:
    """Accepted without a subscriber; delivered to the first one, also after a restart of the broker."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            await make_queue(sending)
            sent = await put(ada, sending, 3)
        async with bob.connect() as worker:
            assert await worker.work("jobs")
            assert ids(await take(worker, 3)) == sent
        await nothing_is_owed(broker.context)


async def test_what_was_not_acknowledged_goes_to_another() -> None:
    """The one that leaves gives back all of it, in its order; what it acknowledged stays done."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending:
            async with bob.connect() as leaving:
                await make_queue(sending, leaving)
                sent = await put(ada, sending, 5)
                held = await leaving.deliveries(5)
                await leaving.acknowledge(held[:2])
                await leaving.settle()
            async with cleo.connect() as staying:
                assert await staying.work("jobs")
                assert ids(await take(staying, 3)) == sent[2:]
        await nothing_is_owed(broker.context)


async def test_a_subscriber_that_does_not_acknowledge_holds_so_many_and_no_more() -> None:
    """The rest goes to a subscriber with room, and the slow one gets more as it acknowledges."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending, bob.connect() as slow:
            await make_queue(sending, slow)
            sent = await put(ada, sending, 2 * HELD)
            held = await slow.deliveries(HELD)
            await slow.settle()
            assert slow.waiting("deliver") == []
            async with cleo.connect() as quick:
                assert await quick.work("jobs")
                rest = await take(quick, HELD)
            assert ids(held) == sent[:HELD]
            assert sorted(ids(rest)) == sorted(sent[HELD:])
            more = await put(ada, sending, 2)
            await slow.acknowledge(held)
            assert ids(await slow.deliveries(2)) == more


async def test_a_subscriber_that_leaves_the_queue_gets_no_more() -> None:
    """topic_unsubscribe holds for what is sent afterwards."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, cleo = await join_mesh(ada, "bob"), await join_mesh(ada, "cleo")
        async with ada.connect() as sending, bob.connect() as one, cleo.connect() as two:
            await make_queue(sending, one, two)
            await one.call("topic_unsubscribe", topic="jobs")
            await one.settle()
            sent = await put(ada, sending, 6)
            assert ids(await take(two, 6)) == sent
            assert one.waiting("deliver") == []


async def test_workers_that_come_and_go_do_every_job() -> None:
    """300 jobs, four workers that drop their connection now and then: each job is done, few twice."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        workers = [await join_mesh(ada, f"worker-{number}") for number in range(4)]
        done: Counter[str] = Counter()
        async with ada.connect() as sending:
            await make_queue(sending)

            async def work(peer: Peer, patience: int) -> None:
                while sum(done.values()) < 300:
                    async with peer.connect() as link:
                        await link.work("jobs")
                        try:
                            async with asyncio.timeout(0.5):
                                for _ in range(patience):
                                    [frame] = await link.deliveries(1)
                                    # Counted first: nothing is owed as soon as the broker has the last one.
                                    done[frame["broker_message_id"]] += 1
                                    await link.acknowledge([frame])
                        except TimeoutError:
                            pass

            working = [asyncio.ensure_future(work(peer, 7 + number)) for number, peer in enumerate(workers)]
            sent = await put(ada, sending, 300)
            await nothing_is_owed(broker.context)
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        assert set(done) == set(sent)


async def test_a_member_of_many_queues_costs_no_transaction_for_each() -> None:
    """Neither when it subscribes once more, nor when it connects, nor when it makes room."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        store, taken = broker.context.store.queues, Counter[str]()
        take_from = store.take

        async def counted(mesh_id: str, queue: str, *more: Any) -> Any:
            taken[queue] += 1
            return await take_from(mesh_id, queue, *more)

        store.take = counted  # type: ignore[method-assign]
        names = [f"queue-{number}" for number in range(60)]
        async with ada.connect() as sending:
            async with bob.connect() as worker:
                for name in names:
                    await worker.call("topic_create", topic=name, mode="queue")
                    await worker.call("topic_subscribe", topic=name)
                await make_queue(sending, worker)
                await put(ada, sending, 3 * HELD)
                await take(worker, 3 * HELD)
                await nothing_is_owed(broker.context)
            await put(ada, sending, 1)
            async with bob.connect() as worker:
                await take(worker, 1)
                await nothing_is_owed(broker.context)
        assert taken.keys() == {"jobs"}
