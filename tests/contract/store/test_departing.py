"""Ephemeral members that have left: nothing of them stays but their messages and the audit."""

from __future__ import annotations

import pytest

from claudemesh.broker.store.departing import BATCH_DELIVERIES, BATCH_MEMBERS
from claudemesh.broker.store.types import Ack, Joined, Member, Version
from tests.support.stores import DAY, ENGINES, NOW, World, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))

LAST = 2**62


async def leave(w: World, *members: Member) -> None:
    for one in members:
        await w.store.members.set_status(w.mesh.id, one.id, "left")


async def forget(w: World, up_to: int = LAST) -> int:
    """Run the job's batches to the end; returns how many members were deleted."""
    count, after = 0, 0
    while True:
        done = await w.store.departed.forget(w.mesh.id, after, up_to)
        count += done.count
        if done.after is None:
            return count
        after = done.after


async def version(w: World) -> Version:
    found = await w.store.directory.version(w.mesh.id)
    assert found is not None
    return found


async def names(w: World) -> set[str]:
    return {one.name for one in await w.store.members.all(w.mesh.id)}


async def test_many_members_leave_no_trace(engine: str) -> None:
    """More than a batch: rows, names, keys, subscriptions and tokens. Others stay."""
    async with world(engine) as w:
        jobs = [await w.join(f"ci-{number}", ephemeral=True) for number in range(BATCH_MEMBERS + 5)]
        await w.join("here", ephemeral=True)
        gone = await w.join("host")
        await leave(w, gone, *jobs)
        assert await forget(w, up_to=-1) == 0
        assert await forget(w) == len(jobs)
        assert await forget(w) == 0
        assert await names(w) == {"alice", "here", "host"}
        [topic] = await w.store.topics.page(w.mesh.id, w.owner.id)
        assert topic.subscribers == 2
        again = replace(jobs[0], id=gone.id[:-12] + "0123456789ab")
        assert isinstance(await w.store.members.join(w.invite(), again, NOW), Joined)


async def test_a_member_stays_while_a_message_of_it_does(engine: str) -> None:
    """Its name and key are part of the delivery."""
    async with world(engine) as w:
        job = await w.join("ci", ephemeral=True)
        send = w.dm(job, w.owner)
        await w.store.messages.accept([send], NOW)
        await leave(w, job)
        assert await forget(w) == 0
        [due] = await w.store.messages.deliveries_due(w.mesh.id, w.owner.id, exclude=(), limit=9)
        assert due.sender_name == "ci"
        await w.store.messages.acknowledge([Ack(w.mesh.id, w.owner.id, (due.delivery_id,))])
        assert await forget(w) == 0


async def test_what_a_departed_member_is_owed_is_deleted(engine: str) -> None:
    """More than a batch of it. Others are owed theirs."""
    async with world(engine) as w:
        job, bob = await w.join("ci", ephemeral=True), await w.join("bob")
        posts = [w.post(w.owner, "all") for _ in range(BATCH_DELIVERIES // 2 + 5)]
        await w.store.messages.accept(posts, NOW)
        more = [w.dm(w.owner, job) for _ in range(BATCH_DELIVERIES // 2)]
        await w.store.messages.accept(more, NOW)
        await leave(w, job)
        assert await forget(w) == 1
        assert len(await w.owed(bob, limit=10_000)) == len(posts)
        assert await w.store.messages.deliveries_pending() == len(posts)


async def test_a_reader_of_a_version_before_takes_the_whole_list(engine: str) -> None:
    """The change that it lacks is not there any more. A reader of a later version goes on with changes."""
    async with world(engine) as w:
        job = await w.join("ci", ephemeral=True)
        before = await version(w)
        await leave(w, job)
        after = await version(w)
        page = await w.store.directory.page(w.mesh.id, before, limit=10)
        assert (page.is_whole, [one.id for one in page.members]) == (False, [job.id])
        assert await forget(w, up_to=before.number) == 0
        assert await forget(w, up_to=after.number) == 1
        page = await w.store.directory.page(w.mesh.id, before, limit=10)
        assert (page.is_whole, [one.name for one in page.members]) == (True, ["alice"])
        bob = await w.join("bob")
        page = await w.store.directory.page(w.mesh.id, after, limit=10)
        assert (page.is_whole, [one.id for one in page.members]) == (False, [bob.id])


async def test_a_member_with_a_connection_stays(engine: str) -> None:
    """Its daemon has not seen that it is over."""
    async with world(engine) as w:
        job = await w.join("ci", ephemeral=True)
        await w.store.presence.open([w.lease(job.id, until=NOW + DAY)])
        await leave(w, job)
        assert await forget(w) == 0
