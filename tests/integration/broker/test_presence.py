"""Presence over real connections: told in few events, truthfully, and never of those who are invisible."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.waiting import WAIT_S
from tests.support.watcher import watching
from tests.support.wspeer import new_id


async def test_a_newcomer_is_told_once_who_is_online_and_the_others_of_the_newcomer() -> None:
    """No list has to be asked for."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with watching(ada) as seen_by_ada:
            await seen_by_ada.sees(ada)
            async with watching(bob) as seen_by_bob:
                await seen_by_bob.sees(ada, bob)
                await seen_by_ada.sees(ada, bob)
                assert len(seen_by_bob.events) == 1
            await seen_by_ada.sees(ada)
            assert [event["whole"] for event in seen_by_ada.events] == [True, False, False]


async def test_many_who_come_together_are_told_in_few_events() -> None:
    """Fifty members: a handful of events for each, not forty-nine, and no event about one member."""
    async with running_broker() as broker, AsyncExitStack() as stack:
        ada = await create_mesh(broker)
        others = [await join_mesh(ada, f"m{number}") for number in range(50)]
        # One of an earlier version is told of each by itself.
        old = await stack.enter_async_context((await join_mesh(ada, "old")).connect())
        await old.settle()
        watcher = await stack.enter_async_context(watching(ada))
        here = set(watcher.online)
        links = await asyncio.gather(*(stack.enter_async_context(peer.connect()) for peer in others))
        everybody = here | {peer.member_id for peer in others}
        await watcher.until(lambda online: online == everybody)
        assert len(watcher.events) < 25, [len(event["online"]) for event in watcher.events]
        assert [frame for frame in watcher.link.waiting("event") if frame["event"] == "peer_join"] == []
        told = set[str]()
        async with asyncio.timeout(WAIT_S):
            while len(told) < 51:
                told.add((await old.event("peer_join"))["member_id"])
        assert told == everybody - {old.ack["member_id"]}
        for link in links:
            link.websocket.transport.abort()
        await watcher.until(lambda online: online == here)
        assert len(watcher.events) < 50


async def test_an_invisible_member_is_never_told_to_be_online_and_shows_the_moment_it_wants() -> None:
    """Neither by an event, nor to a newcomer, nor in the list; it sees the others all the same."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, eve = await join_mesh(ada, "bob"), await join_mesh(ada, "eve")
        async with bob.connect() as link:
            await link.call("profile", visible=False)
        async with watching(ada) as seen_by_ada, watching(bob) as seen_by_bob:
            await seen_by_bob.sees(ada)
            async with watching(eve) as seen_by_eve:
                await seen_by_eve.sees(ada, eve)
                await seen_by_ada.sees(ada, eve)
                assert not any(bob.member_id in event["online"] for event in seen_by_ada.events)
                reply = await seen_by_ada.link.call("peers")
                online = {item["name"] for item in reply["ok"]["items"] if item["online"]}
                assert online == {"owner", "eve"}
                named = await seen_by_ada.link.call("peers", online=True)
                assert set(named["ok"]["online"]) == {ada.member_id, eve.member_id}
                own = await seen_by_bob.link.call("peers")
                assert {item["name"] for item in own["ok"]["items"] if item["online"]} == {
                    "owner",
                    "eve",
                    "bob",
                }
                await seen_by_bob.link.call("profile", visible=True)
                await seen_by_ada.sees(ada, bob, eve)
                await seen_by_eve.sees(ada, bob, eve)
                await seen_by_bob.link.call("profile", visible=False)
                await seen_by_ada.sees(ada, eve)


async def test_daemons_of_an_earlier_version_are_not_told_of_invisible_members_either() -> None:
    """`peer_join` and `peer_leave` follow what is shown."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with bob.connect() as link:
            await link.call("profile", visible=False)
        async with ada.connect() as old, watching(bob) as hidden:
            await hidden.link.call("profile", visible=True)
            assert (await old.event("peer_join"))["name"] == "bob"
            await hidden.link.call("profile", visible=False)
            assert (await old.event("peer_leave"))["member_id"] == bob.member_id


async def test_a_member_that_reconnects_at_once_is_not_told_to_have_gone() -> None:
    """The same daemon's next connection: nothing has changed for the others."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob, eve = await join_mesh(ada, "bob"), await join_mesh(ada, "eve")
        same = {"instance_id": new_id()}
        async with watching(ada) as watcher:
            for _ in range(3):
                async with bob.connect(hello=same), bob.connect(hello=same):
                    await watcher.sees(ada, bob)
                    async with eve.connect():
                        await watcher.sees(ada, bob, eve)
                    await watcher.sees(ada, bob)
                await watcher.sees(ada)
            assert sum(bob.member_id in event["online"] for event in watcher.events) == 3


async def test_the_last_seen_time_is_that_of_the_end_not_of_the_beginning() -> None:
    """A member that was online for long was seen when it went."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        clock = broker.context.clock
        async with watching(ada) as watcher:
            async with bob.connect() as link:
                await watcher.sees(ada, bob)
                await link.settle()
                before_ms = clock.wall_ms()
            event = watcher.events[-1]
            while bob.member_id not in event["offline"]:
                event = await watcher.hear()
            assert event["at"] >= before_ms

            async def kept() -> int:
                members = await broker.context.store.members.all(ada.mesh_id)
                return next(member.last_seen_at or 0 for member in members if member.id == bob.member_id)

            async with asyncio.timeout(WAIT_S):
                while await kept() < before_ms:
                    pass
