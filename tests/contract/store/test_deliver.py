"""Delivering: order, windows, and acknowledgements that only count for their own recipient."""

from __future__ import annotations

import pytest

from claudemesh.broker.store.types import Accepted, Ack, PresenceRow, Seen
from tests.support.stores import ENGINES, NOW, new_ulid, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def test_what_is_owed_comes_by_priority_then_oldest_first(engine: str) -> None:
    """`now`, `next`, `low`; within one, the order of acceptance."""
    async with world(engine) as w:
        bob = await w.join("bob")
        sends = [w.dm(w.owner, bob, priority=priority) for priority in (2, 1, 0, 1, 0)]
        await w.store.messages.accept(sends, NOW)
        order = [2, 4, 1, 3, 0]
        assert await w.owed(bob) == [sends[index].broker_message_id for index in order]
        assert await w.owed(bob, 2) == [sends[index].broker_message_id for index in order[:2]]


async def test_what_is_on_its_way_is_left_out(engine: str) -> None:
    """`exclude` holds what a connection has not acknowledged yet."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.messages.accept([w.dm(w.owner, bob) for _ in range(3)], NOW)
        rows = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=(), limit=10)
        rest = await w.store.messages.deliveries_due(
            w.mesh.id, bob.id, exclude=[row.delivery_id for row in rows[:2]], limit=10
        )
        assert list(rest) == list(rows[2:])


async def test_owed_deliveries_are_counted_for_each_member_up_to_a_limit(engine: str) -> None:
    """A member that is owed nothing has the count 0."""
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        await w.store.messages.accept([w.dm(w.owner, bob) for _ in range(3)], NOW)
        count = w.store.messages.deliveries_owed
        assert await count([bob.id, eve.id], 100) == {bob.id: 3, eve.id: 0}
        assert await count([bob.id, eve.id], 2) == {bob.id: 2, eve.id: 0}
        assert await count([], 100) == {}


async def test_an_ack_for_somebody_elses_row_is_ignored(engine: str) -> None:
    """Only the recipient's own; a second ack of the same row does nothing."""
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        [outcome] = await w.store.messages.accept([w.dm(w.owner, bob)], NOW)
        assert isinstance(outcome, Accepted)
        ids = tuple(row.delivery_id for row in outcome.deliveries)
        assert await w.store.messages.acknowledge([Ack(w.mesh.id, eve.id, ids)]) == 0
        assert len(await w.owed(bob)) == 1
        assert await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, ids)]) == 1
        assert await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, ids)]) == 0
        assert await w.owed(bob) == []


async def test_a_dm_reaches_nobody_in_another_mesh(engine: str) -> None:
    """The mesh is the unit of isolation, in every query."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.messages.accept([w.dm(w.owner, bob)], NOW)
        other = "01899e2d-0000-7000-8000-00000000ffff"
        assert await w.store.messages.deliveries_due(other, bob.id, exclude=(), limit=10) == []
        assert await w.store.members.by_key(other, bob.ed25519_pubkey) is None


async def test_presence_is_a_lease(engine: str) -> None:
    """Online until the lease ends; renewed, closed, or cleared with its broker."""
    async with world(engine) as w:
        bob = await w.join("bob")
        row = PresenceRow(new_ulid(), bob.id, w.mesh.id, "broker-1", NOW, NOW + 60_000)
        await w.store.presence.open([row])
        assert await w.store.presence.online(w.mesh.id, NOW) == {bob.id}
        assert await w.store.presence.online(w.mesh.id, NOW + 60_000) == frozenset()
        await w.store.presence.renew("broker-1", NOW + 120_000)
        assert await w.store.presence.online(w.mesh.id, NOW + 60_000) == {bob.id}
        await w.store.presence.close([row.connection_id])
        assert await w.store.presence.online(w.mesh.id, NOW) == frozenset()
        await w.store.presence.open([row])
        await w.store.presence.clear("broker-1")
        assert await w.store.presence.online(w.mesh.id, NOW) == frozenset()


async def test_members_are_seen_together_each_at_its_time_and_host(engine: str) -> None:
    """One statement for many; a host that is not told stays as it was."""
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        await w.store.presence.members_seen(
            [Seen(w.mesh.id, bob.id, NOW, b"h" * 32), Seen(w.mesh.id, eve.id, NOW + 1, None)]
        )
        await w.store.presence.members_seen([Seen(w.mesh.id, bob.id, NOW + 2, None)])
        seen = {
            member.name: (member.last_seen_at, member.last_seen_host_fingerprint)
            for member in await w.store.members.all(w.mesh.id)
        }
        assert seen == {"alice": (None, None), "bob": (NOW + 2, b"h" * 32), "eve": (NOW + 1, None)}
        await w.store.presence.members_seen([Seen("01899e2d-0000-7000-8000-00000000ffff", bob.id, 7, None)])
        [bob] = [member for member in await w.store.members.all(w.mesh.id) if member.name == "bob"]
        assert bob.last_seen_at == NOW + 2, "the mesh is part of every statement"


async def test_last_seen_times_are_those_of_active_members_that_show_them(engine: str) -> None:
    """Of those that are asked for, in that mesh: one that left, hides or was never seen has none."""
    async with world(engine) as w:
        bob, eve, zoe, max_, new = [await w.join(name) for name in ("bob", "eve", "zoe", "max", "new")]
        shown = (bob, eve, zoe, max_)
        await w.store.presence.members_seen([Seen(w.mesh.id, one.id, NOW, None) for one in shown])
        await w.store.members.set_profile(w.mesh.id, eve.id, visible=False)
        await w.store.members.set_status(w.mesh.id, zoe.id, "left")
        asked = [bob.id, eve.id, zoe.id, new.id, "01899e2d-0000-7000-8000-00000000ffff"]
        assert await w.store.presence.last_seen(w.mesh.id, asked) == {bob.id: NOW}
        assert await w.store.presence.last_seen("01899e2d-0000-7000-8000-00000000ffff", asked) == {}
        assert await w.store.presence.last_seen(w.mesh.id, []) == {}


async def test_whoever_holds_a_lease_of_a_broker_is_seen(engine: str) -> None:
    """Connections last for hours: their members are seen meanwhile, and no other members are."""
    async with world(engine) as w:
        bob, eve, zoe = [await w.join(name) for name in ("bob", "eve", "zoe")]
        await w.store.presence.open([w.lease(bob.id, until=NOW + 1), w.lease(zoe.id, until=NOW + 1)])
        await w.store.presence.present_seen("another", NOW)
        await w.store.presence.present_seen("broker-1", NOW + 5)
        members = await w.store.members.all(w.mesh.id)
        assert {member.id: member.last_seen_at for member in members} == {
            w.owner.id: None,
            bob.id: NOW + 5,
            eve.id: None,
            zoe.id: NOW + 5,
        }
