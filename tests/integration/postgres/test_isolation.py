"""Several brokers on one database, at the same moment (docs/spec/broker.md, Several brokers)."""

from __future__ import annotations

import asyncio
import random

import pytest

from claudemesh.broker.store.types import Accepted, Existing, Joined, JoinRefused, Refused
from claudemesh.runtime.errors import StorageUnavailable
from tests.integration.postgres.shared import shared, watching
from tests.support.postgres import shared_server
from tests.support.stores import NOW, member, new_ulid


async def test_one_id_at_once_on_two_brokers_has_one_winner() -> None:
    """One 201; all others get the winner's row, and nothing else was written."""
    async with shared() as s:
        for _ in range(20):
            name = new_ulid()
            sends = [w.dm(w.owner, s.bob, client_message_id=name) for w in (s.one, s.two, s.one, s.two)]
            stores = [s.one.store, s.two.store] * 2
            calls = [store.messages.accept([send], NOW) for store, send in zip(stores, sends, strict=True)]
            outcomes = [outcome for [outcome] in await asyncio.gather(*calls)]
            [winner] = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Accepted)]
            rows = [outcome.row for outcome in outcomes if isinstance(outcome, Existing)]
            assert [row.broker_message_id for row in rows] == [sends[winner].broker_message_id] * 3
        for table in ("client_message_dedupe", "message_queue", "message_history", "delivery_queue"):
            assert await s.count(table) == 20


@pytest.mark.parametrize("committed", [True, False])
async def test_a_loser_waits_for_the_winner_s_fate(committed: bool) -> None:
    """Rolled back, the id is free: the loser is accepted. Committed, it is the winner's."""
    async with shared() as s:
        winner = s.one.dm(s.one.owner, s.bob, client_message_id="x")
        loser = s.two.dm(s.two.owner, s.bob, client_message_id="x")
        transaction = s.connection.transaction()
        await transaction.start()
        [row] = await s.call_accept([winner])
        assert row["outcome"] == "accepted"
        call = asyncio.ensure_future(s.two.store.messages.accept([loser], NOW))
        await s.waiting()
        await (transaction.commit() if committed else transaction.rollback())
        [outcome] = await call
        if committed:
            assert isinstance(outcome, Existing)
            assert outcome.row.broker_message_id == winner.broker_message_id
        else:
            assert isinstance(outcome, Accepted)
        kept = winner if committed else loser
        assert await s.two.owed(s.bob) == [kept.broker_message_id]


async def test_a_winner_that_is_refused_leaves_the_id_to_the_loser() -> None:
    """A refusal in phase check undoes the claim with the commit, and a send that waited is accepted."""
    async with shared() as s:
        winner = s.one.post(s.one.owner, "nowhere", client_message_id="x")
        loser = s.two.dm(s.two.owner, s.bob, client_message_id="x")
        async with s.connection.transaction():
            [row] = await s.call_accept([winner])
            assert (row["outcome"], row["error"]) == ("refused", "destination_not_found")
            call = asyncio.ensure_future(s.two.store.messages.accept([loser], NOW))
            await s.waiting()
        [outcome] = await call
        assert isinstance(outcome, Accepted)


async def test_a_row_that_is_swept_away_between_claim_and_read_is_no_error() -> None:
    """The key was taken when it was claimed and is gone when it is read: the store tries again."""
    async with shared() as s:
        await s.one.store.messages.accept([s.one.dm(s.one.owner, s.bob, client_message_id="x")], NOW)
        again = s.one.dm(s.one.owner, s.bob, client_message_id="x")
        async with s.gate("client_message_dedupe"):
            call = asyncio.ensure_future(s.one.store.messages.accept([again], NOW))
            await s.waiting()
            await s.connection.execute("DELETE FROM mesh.client_message_dedupe")
        [outcome] = await call
        assert isinstance(outcome, Accepted)


def deadlocks() -> int:
    """Return how many deadlocks the server has told of."""
    return shared_server().log.read_text().count("deadlock detected")


async def test_batches_in_opposite_order_of_their_keys_do_not_deadlock() -> None:
    """Keys are claimed in their order, for any order of the batch."""
    async with shared() as s:
        names, before = [f"id{number:03}" for number in range(100)], deadlocks()
        for round_ in range(10):
            batches = []
            for w, order in ((s.one, names), (s.two, names[::-1]), (s.one, random.sample(names, 100))):
                sends = [w.dm(w.owner, s.bob, client_message_id=f"{round_}-{name}") for name in order]
                batches.append((w.store, sends))
            found = await asyncio.gather(*(store.messages.accept(sends, NOW) for store, sends in batches))
            accepted = [
                send.key
                for (_, sends), outcomes in zip(batches, found, strict=True)
                for send, outcome in zip(sends, outcomes, strict=True)
                if isinstance(outcome, Accepted)
            ]
            assert sorted(key.client_message_id for key in accepted) == [f"{round_}-{name}" for name in names]
        # The statistics of the server come late; its log does not.
        assert deadlocks() == before


async def test_a_deadlock_is_the_store_s_own_business() -> None:
    """Locks taken in the wrong order, on purpose: the server ends one side, and the store tries again."""
    async with shared() as s:
        first, last = (s.one.dm(s.one.owner, s.bob, client_message_id=name) for name in ("a", "z"))
        before = deadlocks()
        await s.connection.execute("SET deadlock_timeout = '10s'")
        transaction = s.connection.transaction()
        await transaction.start()
        await s.call_accept([last])
        call = asyncio.ensure_future(s.two.store.messages.accept([first, last], NOW))
        await s.waiting()
        # Ours now waits for theirs, and theirs for ours; theirs looks for deadlocks first.
        await s.call_accept([first._replace(broker_message_id=new_ulid())])
        await transaction.commit()
        outcomes = await call
        # The next try can take the first key before the other side wakes: then the server ends it once more.
        assert deadlocks() > before
        assert [type(outcome) for outcome in outcomes] == [Existing, Existing]


async def test_a_session_that_ends_while_it_commits_leaves_the_outcome_unknown() -> None:
    """Not accepted, not refused: the retry decides, and there is one message."""
    async with shared() as s:
        send = s.one.dm(s.one.owner, s.bob)
        async with s.gate("client_message_dedupe", deferred=True):
            call = asyncio.ensure_future(s.one.store.messages.accept([send], NOW))
            await s.waiting()
            await s.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
            with pytest.raises(StorageUnavailable):
                await call
        assert await s.one.store.messages.lookup([send.key]) == {}
        [outcome] = await s.one.store.messages.accept([send], NOW)
        assert isinstance(outcome, Accepted)
        assert await s.one.owed(s.bob) == [send.broker_message_id]


async def test_a_statement_that_is_cancelled_leaves_the_outcome_unknown() -> None:
    """An operator cancelled it at the server: ask again."""
    async with shared() as s:
        send = s.one.dm(s.one.owner, s.bob)
        async with s.gate("delivery_queue"):
            call = asyncio.ensure_future(s.one.store.messages.accept([send], NOW))
            await s.waiting()
            await s.connection.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
            with pytest.raises(StorageUnavailable):
                await call
        assert isinstance((await s.one.store.messages.accept([send], NOW))[0], Accepted)


async def test_a_caller_that_goes_away_does_not_leave_a_lock_behind() -> None:
    """A cancelled accept ends its statement; the connection serves the next one."""
    async with shared() as s:
        send = s.one.dm(s.one.owner, s.bob)
        async with s.gate("delivery_queue"):
            call = asyncio.ensure_future(s.one.store.messages.accept([send], NOW))
            await s.waiting()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        outcomes = [await s.two.store.messages.accept([send], NOW) for _ in range(2)]
        assert [type(outcome) for [outcome] in outcomes] in ([Accepted, Existing], [Existing, Existing])
        assert await s.count("delivery_queue") == 1


async def test_a_warning_with_the_commit_is_no_acknowledgement() -> None:
    """As when an operator cancels the wait for a standby: committed here, perhaps not on the standby."""
    async with shared() as s:
        await s.connection.execute(
            """CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE WARNING 'not on the standby'; RETURN NULL; END $$"""
        )
        await s.connection.execute(
            "CREATE TRIGGER warn AFTER INSERT ON mesh.message_history EXECUTE FUNCTION warn()"
        )
        with pytest.raises(StorageUnavailable):
            await s.one.store.messages.accept([s.one.dm(s.one.owner, s.bob)], NOW)


async def test_recipients_are_those_of_one_moment() -> None:
    """Subscribing while a post is accepted: a recipient or not, never half of it."""
    async with shared() as s:
        await s.one.store.topics.create(s.one.mesh.id, "news", "topic", s.one.owner.id, NOW)
        for _ in range(20):
            post = s.two.post(s.two.owner, "news")
            subscribe = s.one.store.topics.subscribe(s.one.mesh.id, "news", s.bob.id, NOW)
            [outcome], _ = await asyncio.gather(s.two.store.messages.accept([post], NOW), subscribe)
            assert isinstance(outcome, Accepted)
            told = [row.recipient_member_id for row in outcome.deliveries]
            owed = post.broker_message_id in await s.one.owed(s.bob)
            assert told == ([s.bob.id] if owed else [])
            await s.one.store.topics.unsubscribe(s.one.mesh.id, "news", s.bob.id)


async def test_one_name_at_once_by_two_invites_has_one_winner() -> None:
    """The index decides, and the other one is told so as if it had come later."""
    async with shared() as s:
        joins = [
            w.store.members.join(w.invite(), member(w.mesh.id, name), NOW)
            for w, name in ((s.one, "Carol"), (s.two, "carol"), (s.one, "CAROL"), (s.two, "carol"))
        ]
        outcomes = await asyncio.gather(*joins)
        assert sum(isinstance(outcome, Joined) for outcome in outcomes) == 1
        assert outcomes.count(JoinRefused("name_taken")) == 3
        assert sum(row.used_count for row in await s.one.store.members.invites(s.one.mesh.id)) == 2


async def test_a_revocation_and_a_send_at_once_agree_on_an_order() -> None:
    """Either the send came first and is owed to its recipient, or it is refused and left nothing."""
    async with shared() as s:
        eve = await s.one.join("eve")
        sends = [s.two.dm(eve, s.bob) for _ in range(5)]
        calls = [s.two.store.messages.accept([send], NOW) for send in sends]
        revoked, *found = await asyncio.gather(
            s.one.store.members.set_status(s.one.mesh.id, eve.id, "revoked"), *calls
        )
        assert revoked
        accepted = {
            send.broker_message_id
            for send, [outcome] in zip(sends, found, strict=True)
            if isinstance(outcome, Accepted)
        }
        refused = [outcome for [outcome] in found if outcome == Refused("not_a_member")]
        assert len(accepted) + len(refused) == 5
        assert set(await s.one.owed(s.bob)) == accepted


async def test_a_row_on_its_way_out_is_waited_for() -> None:
    """A sweep that deletes the winner's row in an open transaction: the id is free once it commits."""
    async with shared() as s:
        await s.one.store.messages.accept([s.one.dm(s.one.owner, s.bob, client_message_id="x")], NOW)
        again = s.one.dm(s.one.owner, s.bob, client_message_id="x")
        async with watching(s.url) as sweep, sweep.transaction():
            await sweep.execute("DELETE FROM mesh.client_message_dedupe")
            call = asyncio.ensure_future(s.one.store.messages.accept([again], NOW))
            await s.waiting()
        [outcome] = await call
        assert isinstance(outcome, Accepted)
