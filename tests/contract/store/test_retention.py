"""What goes after its time goes whole, what is owed stays, and nothing that is whole is called an orphan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from claudemesh.broker.store.base import Accepted, Ack, Existing, Member, NewSend, PresenceRow, Store
from tests.support.stores import DAY, ENGINES, NOW, World, new_ulid, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def accept(w: World, *sends: NewSend, now_ms: int = NOW) -> None:
    """Accept sends; all of them are new."""
    assert all(isinstance(outcome, Accepted) for outcome in await w.store.accept(sends, now_ms))


async def receive(w: World, *members: Member) -> None:
    """Acknowledge everything that these members are owed."""
    for one in members:
        rows = await w.store.deliveries_due(w.mesh.id, one.id, exclude=(), limit=10_000)
        ids = tuple(row.delivery_id for row in rows)
        await w.store.acknowledge([Ack(w.mesh.id, one.id, ids)])


async def sweep(store: Store, now_ms: int) -> int:
    """Sweep messages to the end."""
    count, after = 0, 0
    while True:
        swept = await store.sweep_messages(now_ms, after)
        count += swept.count
        if swept.after is None:
            return count
        after = swept.after


async def violations(store: Store) -> Counter[str]:
    """Check everything; how many findings of each kind."""
    found: Counter[str] = Counter()
    position = None
    while True:
        checked = await store.check(position)
        found.update(finding.kind for finding in checked.findings)
        if checked.position is None:
            return found
        position = checked.position


async def test_a_message_past_its_retention_goes_and_its_id_stays(engine: str) -> None:
    """A retry is still a duplicate with the same ids, and says that the history is gone."""
    async with world(engine, message_retention_days=30) as w:
        bob = await w.join("bob")
        sends = [w.dm(w.owner, bob, mentions=(bob.ed25519_pubkey,)), w.post(w.owner, "all")]
        await accept(w, *sends)
        await receive(w, bob)
        assert await sweep(w.store, NOW + 30 * DAY) == 0
        assert await sweep(w.store, NOW + 30 * DAY + 1) == 2
        assert await sweep(w.store, NOW + 30 * DAY + 1) == 0
        assert await violations(w.store) == {}
        for send in sends:
            row = (await w.store.lookup([send.key]))[send.key]
            assert (row.broker_message_id, row.history_available) == (send.broker_message_id, False)
            [again] = await w.store.accept([replace(send, broker_message_id=new_ulid())], NOW + 31 * DAY)
            assert isinstance(again, Existing)


async def test_what_somebody_is_still_owed_stays(engine: str) -> None:
    """However old: carol was away for months, and finds it when she comes back."""
    async with world(engine, message_retention_days=1) as w:
        bob, carol = await w.join("bob"), await w.join("carol")
        post, dm = w.post(w.owner, "all"), w.dm(w.owner, bob)
        await accept(w, post, dm)
        await receive(w, bob)
        assert await sweep(w.store, NOW + 300 * DAY) == 1
        assert await w.owed(carol) == [post.broker_message_id]
        assert (await w.store.lookup([post.key]))[post.key].history_available
        await receive(w, carol)
        assert await sweep(w.store, NOW + 300 * DAY) == 1
        assert await violations(w.store) == {}


async def test_a_sweep_of_many_goes_on_where_it_was(engine: str) -> None:
    """More than a batch, with messages in between that must stay."""
    async with world(engine, message_retention_days=1) as w:
        bob, carol = await w.join("bob"), await w.join("carol")
        sends = [w.dm(w.owner, carol if number % 3 == 0 else bob) for number in range(1500)]
        for first in range(0, len(sends), 250):
            await accept(w, *sends[first : first + 250])
        young = [w.dm(w.owner, bob) for _ in range(5)]
        await accept(w, *young, now_ms=NOW + 10 * DAY)
        await receive(w, bob)
        assert await sweep(w.store, NOW + 10 * DAY) == 1000
        assert len(await w.owed(carol, limit=1000)) == 500
        assert all(row.history_available for row in (await w.store.lookup([s.key for s in young])).values())
        assert await violations(w.store) == {}


async def test_each_mesh_goes_by_its_own_retention(engine: str) -> None:
    """The shorter one first."""
    async with world(engine, message_retention_days=10) as w:
        bob = await w.join("bob")
        await accept(w, w.dm(w.owner, bob))
        await receive(w, bob)
        assert await w.store.mesh_update(replace(w.mesh, message_retention_days=90))
        assert await sweep(w.store, NOW + 11 * DAY) == 0
        assert await sweep(w.store, NOW + 91 * DAY) == 1


async def test_an_id_is_forgotten_after_its_time_and_not_before_its_message(engine: str) -> None:
    """In permanent mode never."""
    async with world(engine, message_retention_days=7, dedupe_retention_days=7) as w:
        bob = await w.join("bob")
        owed, received = w.dm(w.owner, bob), w.post(bob, "all")
        await accept(w, owed, received)
        await receive(w, w.owner)
        later = NOW + 8 * DAY
        assert await w.store.sweep_dedupe(later) == 0
        assert await sweep(w.store, later) == 1
        assert await w.store.sweep_dedupe(NOW + 7 * DAY - 1) == 0
        assert await w.store.sweep_dedupe(later) == 1
        assert set(await w.store.lookup([owed.key, received.key])) == {owed.key}
        assert await violations(w.store) == {}
    async with world(engine, message_retention_days=7, dedupe_retention_mode="permanent") as w:
        bob = await w.join("bob")
        send = w.dm(w.owner, bob)
        await accept(w, send)
        await receive(w, bob)
        assert await sweep(w.store, NOW + 9000 * DAY) == 1
        assert await w.store.sweep_dedupe(NOW + 9000 * DAY) == 0
        assert await w.store.lookup([send.key])


async def test_ephemeral_members_leave_when_their_lease_has_run_out(engine: str) -> None:
    """Those that are here stay, and so do persistent ones; whoever left is sent nothing any more."""
    async with world(engine) as w:
        here, gone = await w.join("here", ephemeral=True), await w.join("gone", ephemeral=True)
        await w.join("persistent")
        await w.store.presence_open(PresenceRow(new_ulid(), here.id, w.mesh.id, "broker", NOW, NOW + 3 * DAY))
        assert await w.store.reap_ephemeral(NOW, NOW - 1000) == []
        assert await w.store.reap_ephemeral(NOW + DAY, NOW + DAY - 1000) == [(w.mesh.id, gone.id)]
        assert await w.store.reap_ephemeral(NOW + DAY, NOW + DAY - 1000) == []
        statuses = {one.name: one.status for one in await w.store.member_list(w.mesh.id)}
        assert statuses == {"alice": "active", "here": "active", "gone": "left", "persistent": "active"}
