"""Retention: a message past its time is deleted completely, an owed one stays, and a complete one is never
reported as an orphan. Time is the database's lived clock, here in milliseconds since the beginning of the
tests; wall times are NOW.

Time is the database's lived clock, in milliseconds since the tests' beginning here; wall times are NOW.
"""

from __future__ import annotations

from collections import Counter

import pytest

from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.types import (
    LATEST_COMMIT_MS,
    Absent,
    Accepted,
    Ack,
    Existing,
    JobRun,
    Member,
    NewSend,
    PresenceRow,
    Seen,
)
from claudemesh.runtime.lived import Mark
from tests.support.stores import DAY, ENGINES, NOW, World, new_ulid, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def accept(w: World, *sends: NewSend, now_ms: int = NOW) -> None:
    """Accept sends; all of them are new."""
    assert all(isinstance(outcome, Accepted) for outcome in await w.store.messages.accept(sends, now_ms))


async def receive(w: World, *members: Member) -> None:
    """Acknowledge everything that these members are owed."""
    for one in members:
        rows = await w.store.messages.deliveries_due(w.mesh.id, one.id, exclude=(), limit=10_000)
        ids = tuple(row.delivery_id for row in rows)
        await w.store.messages.acknowledge([Ack(w.mesh.id, one.id, ids)])


async def live(store: Store, lived_ms: int) -> None:
    """Move the lived clock to a position."""
    assert await store.upkeep.note_lived_clock(Mark(lived_ms, "boot", 0), 0) == lived_ms


async def sweep(store: Store, lived_ms: int, now_ms: int = NOW) -> int:
    """Sweep messages to the end."""
    count, after = 0, 0
    while True:
        swept = await store.retention.sweep_messages(lived_ms, now_ms, after)
        count += swept.count
        if swept.after is None:
            return count
        after = swept.after


async def violations(store: Store) -> Counter[str]:
    """Check everything; how many findings of each kind."""
    found: Counter[str] = Counter()
    position = None
    while True:
        checked = await store.retention.check(position)
        found.update(finding.kind for finding in checked.findings)
        if checked.position is None:
            return found
        position = checked.position


async def test_a_message_past_its_retention_goes_and_its_id_stays(engine: str) -> None:
    """A retry is still a duplicate with the same ids, and says that the history is gone."""
    async with world(engine, message_retention_days=30) as w:
        bob = await w.join("bob")
        sends = [w.dm(w.owner, bob), w.post(w.owner, "all")]
        await accept(w, *sends)
        await live(w.store, 0)
        await receive(w, bob)
        assert await sweep(w.store, 30 * DAY) == 0
        assert await sweep(w.store, 30 * DAY + LATEST_COMMIT_MS) == 2
        assert await sweep(w.store, 30 * DAY + LATEST_COMMIT_MS) == 0
        assert await violations(w.store) == {}
        for send in sends:
            row = (await w.store.messages.lookup([send.key]))[send.key]
            assert (row.broker_message_id, row.history_available) == (send.broker_message_id, False)
            [again] = await w.store.messages.accept(
                [send._replace(broker_message_id=new_ulid())], NOW + 31 * DAY
            )
            assert isinstance(again, Existing)


async def test_what_somebody_is_still_owed_stays(engine: str) -> None:
    """However old: carol was away for months, and finds it when she comes back."""
    async with world(engine, message_retention_days=1) as w:
        bob, carol = await w.join("bob"), await w.join("carol")
        post, dm = w.post(w.owner, "all"), w.dm(w.owner, bob)
        await accept(w, post, dm)
        await live(w.store, 0)
        await receive(w, bob)
        assert await sweep(w.store, 300 * DAY) == 1
        assert await w.owed(carol) == [post.broker_message_id]
        assert (await w.store.messages.lookup([post.key]))[post.key].history_available
        await receive(w, carol)
        assert await sweep(w.store, 300 * DAY) == 1
        assert await violations(w.store) == {}


async def test_a_sweep_of_many_goes_on_where_it_was(engine: str) -> None:
    """More than a batch, with messages in between that must stay."""
    async with world(engine, message_retention_days=1) as w:
        bob, carol = await w.join("bob"), await w.join("carol")
        sends = [w.dm(w.owner, carol if number % 3 == 0 else bob) for number in range(1500)]
        for first in range(0, len(sends), 250):
            await accept(w, *sends[first : first + 250])
        await live(w.store, 0)
        young = [w.dm(w.owner, bob) for _ in range(5)]
        await accept(w, *young)
        await live(w.store, 10 * DAY)
        await receive(w, bob)
        assert await sweep(w.store, 10 * DAY) == 1000
        assert len(await w.owed(carol, limit=1000)) == 500
        assert all(
            row.history_available for row in (await w.store.messages.lookup([s.key for s in young])).values()
        )
        assert await violations(w.store) == {}


async def test_each_mesh_goes_by_its_own_retention(engine: str) -> None:
    """The shorter one first."""
    async with world(engine, message_retention_days=10) as w:
        bob = await w.join("bob")
        await accept(w, w.dm(w.owner, bob))
        await live(w.store, 0)
        await receive(w, bob)
        assert await w.store.meshes.update(replace(w.mesh, message_retention_days=90))
        assert await sweep(w.store, 11 * DAY) == 0
        assert await sweep(w.store, 91 * DAY) == 1


async def test_an_id_is_forgotten_after_its_time_and_not_before_its_message(engine: str) -> None:
    """In permanent mode never."""
    async with world(engine, message_retention_days=7, dedupe_retention_days=7) as w:
        bob = await w.join("bob")
        owed, received = w.dm(w.owner, bob), w.post(bob, "all")
        await accept(w, owed, received)
        await live(w.store, 0)
        await receive(w, w.owner)
        later = 8 * DAY
        assert await w.store.retention.sweep_dedupe(later) == 0
        assert await sweep(w.store, later) == 1
        assert await w.store.retention.sweep_dedupe(7 * DAY) == 0
        assert await w.store.retention.sweep_dedupe(later) == 1
        assert set(await w.store.messages.lookup([owed.key, received.key])) == {owed.key}
        assert await violations(w.store) == {}
    async with world(engine, message_retention_days=7, dedupe_retention_mode="permanent") as w:
        bob = await w.join("bob")
        send = w.dm(w.owner, bob)
        await accept(w, send)
        await live(w.store, 0)
        await receive(w, bob)
        assert await sweep(w.store, 9000 * DAY) == 1
        assert await w.store.retention.sweep_dedupe(9000 * DAY) == 0
        assert await w.store.messages.lookup([send.key])


@pytest.mark.parametrize("wall_ms", [0, 2**31 * 1000, NOW + 365 * DAY, NOW - 365 * DAY])
async def test_no_wall_clock_deletes_a_message_or_an_id(engine: str, wall_ms: int) -> None:
    """Accepted with a clock in 1970, 2038, or a year off, and swept with another: only lived time counts."""
    async with world(engine, message_retention_days=7, dedupe_retention_days=7) as w:
        bob = await w.join("bob")
        early, late = w.dm(w.owner, bob), w.dm(w.owner, bob)
        await accept(w, early, now_ms=wall_ms)
        await accept(w, late)
        await receive(w, bob)
        await live(w.store, 0)
        for now_ms in (0, NOW, NOW + 4000 * DAY):
            assert await sweep(w.store, 7 * DAY, now_ms) == 0
        assert await sweep(w.store, 8 * DAY) == 2
        assert await w.store.retention.sweep_dedupe(7 * DAY) == 0
        for send in (early, late):
            [again] = await w.store.messages.accept([send._replace(broker_message_id=new_ulid())], NOW)
            assert isinstance(again, Existing)
        assert await w.store.retention.sweep_dedupe(8 * DAY) == 2


async def test_what_was_accepted_before_any_time_was_noted_counts_from_the_first_note(engine: str) -> None:
    """Messages of a database that knew no lived time are as old as its upgrade."""
    async with world(engine, message_retention_days=1) as w:
        bob = await w.join("bob")
        await accept(w, w.dm(w.owner, bob), now_ms=NOW - 1000 * DAY)
        await receive(w, bob)
        assert await sweep(w.store, 5000 * DAY) == 0
        await live(w.store, 5000 * DAY)
        assert await sweep(w.store, 5001 * DAY) == 0
        assert await sweep(w.store, 5002 * DAY) == 1


async def test_an_id_is_kept_for_the_longer_of_its_own_and_the_meshs_retention(engine: str) -> None:
    """A retention that is shortened takes nothing from ids that were accepted under a longer one."""
    async with world(engine, message_retention_days=7, dedupe_retention_days=30) as w:
        bob = await w.join("bob")
        first = w.dm(w.owner, bob)
        await accept(w, first)
        await live(w.store, 0)
        await w.store.meshes.update(replace(w.mesh, dedupe_retention_days=7))
        second = w.dm(w.owner, bob)
        await accept(w, second)
        await live(w.store, DAY)
        await receive(w, bob)
        assert await sweep(w.store, 60 * DAY) == 2
        assert await w.store.retention.sweep_dedupe(20 * DAY) == 1
        assert set(await w.store.messages.lookup([first.key, second.key])) == {first.key}
        await w.store.meshes.update(replace(w.mesh, dedupe_retention_days=60))
        assert await w.store.retention.sweep_dedupe(40 * DAY) == 0
        await w.store.meshes.update(replace(w.mesh, dedupe_retention_days=7))
        assert await w.store.retention.sweep_dedupe(40 * DAY) == 1


async def test_the_history_is_noted_once_an_hour_and_only_when_it_grew(engine: str) -> None:
    """A message is never taken for older than it is, at most for an hour younger."""
    hour = 3_600_000
    async with world(engine, message_retention_days=1) as w:
        bob = await w.join("bob")
        await accept(w, w.dm(w.owner, bob))
        await live(w.store, 0)
        await accept(w, w.dm(w.owner, bob))
        await live(w.store, hour - 1)
        await receive(w, bob)
        assert await sweep(w.store, DAY + hour) == 1
        await live(w.store, hour)
        assert await sweep(w.store, DAY + hour) == 0
        assert await sweep(w.store, DAY + 2 * hour) == 1


async def test_the_lived_clock_takes_a_later_position_and_tells_of_an_earlier_one(engine: str) -> None:
    """Brokers that share a database agree on the latest; a database that was replaced is not written over."""
    async with world(engine) as w:
        assert await w.store.upkeep.lived_clock() is None
        assert await w.store.upkeep.note_lived_clock(Mark(5000, "a", 10), 0) == 5000
        assert await w.store.upkeep.note_lived_clock(Mark(4000, "b", 20), 3000) == 5000
        assert await w.store.upkeep.lived_clock() == Mark(5000, "a", 10)
        assert await w.store.upkeep.note_lived_clock(Mark(9000, "b", 20), 8000) == 5000
        assert await w.store.upkeep.lived_clock() == Mark(5000, "a", 10)
        assert await w.store.upkeep.note_lived_clock(Mark(6000, None, 30), 5000) == 6000
        assert await w.store.upkeep.lived_clock() == Mark(6000, None, 30)


async def test_the_last_run_of_each_job_is_remembered(engine: str) -> None:
    async with world(engine) as w:
        assert await w.store.upkeep.job_runs() == {}
        first, other = JobRun("sweep", 1, NOW, 2, 0), JobRun("check", 5, NOW, 7, 1)
        latest = JobRun("sweep", 9, NOW + 1, 3, 0)
        for run in (first, other, latest):
            await w.store.upkeep.note_job(run)
        assert await w.store.upkeep.job_runs() == {"sweep": latest, "check": other}


async def test_ephemeral_members_leave_when_their_lease_has_run_out(engine: str) -> None:
    """Members with a lease stay, and so do persistent ones; a member that has left gets no more messages."""
    async with world(engine) as w:
        here, gone = await w.join("here", ephemeral=True), await w.join("gone", ephemeral=True)
        await w.join("persistent")
        await w.store.presence.open([PresenceRow(new_ulid(), here.id, w.mesh.id, "broker", 0, 3 * DAY)])
        absent = await w.store.retention.absent_ephemerals(DAY)
        assert absent == [Absent(w.mesh.id, gone.id, None)]
        assert await w.store.retention.reap_ephemeral(absent, DAY) == [(w.mesh.id, gone.id)]
        assert await w.store.retention.reap_ephemeral(absent, DAY) == []
        assert await w.store.retention.absent_ephemerals(DAY) == []
        statuses = {one.name: one.status for one in await w.store.members.all(w.mesh.id)}
        assert statuses == {"alice": "active", "here": "active", "gone": "left", "persistent": "active"}


async def test_an_ephemeral_member_that_came_back_in_between_stays(engine: str) -> None:
    """With a lease now, or with one for a moment since, at any wall time."""
    async with world(engine) as w:
        here, left = await w.join("here", ephemeral=True), await w.join("left", ephemeral=True)
        absent = await w.store.retention.absent_ephemerals(DAY)
        assert {one.member_id for one in absent} == {here.id, left.id}
        await w.store.presence.open([PresenceRow(new_ulid(), here.id, w.mesh.id, "broker", DAY, DAY + 1)])
        await w.store.presence.members_seen([Seen(w.mesh.id, left.id, 1000, None)])
        assert await w.store.retention.reap_ephemeral(absent, DAY) == []


async def test_ephemeral_members_end_when_their_time_is_over(engine: str) -> None:
    """With a lease, too. Others stay: those with more time, and those without a bound."""
    async with world(engine) as w:
        short = await w.join("short", ephemeral=True, ends_lived_ms=DAY)
        await w.join("long", ephemeral=True, ends_lived_ms=DAY + 1)
        await w.join("unbounded", ephemeral=True)
        await w.store.presence.open([PresenceRow(new_ulid(), short.id, w.mesh.id, "broker", 0, 3 * DAY)])
        assert await w.store.retention.end_ephemerals(DAY - 1) == []
        assert await w.store.retention.end_ephemerals(DAY) == [(w.mesh.id, short.id)]
        assert await w.store.retention.end_ephemerals(DAY) == []
        statuses = {one.name: one.status for one in await w.store.members.all(w.mesh.id)}
        assert statuses == {"alice": "active", "short": "left", "long": "active", "unbounded": "active"}
