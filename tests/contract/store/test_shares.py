"""Shares of members: counted in the transactions that change them, and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from claudemesh.broker.store.decisions import BATCH_ROWS, PRUNE_ROWS
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.types import (
    LATEST_COMMIT_MS,
    Accepted,
    Ack,
    AuditEvent,
    InviteRow,
    Member,
    NewSend,
)
from claudemesh.runtime.lived import Mark
from tests.support.stores import DAY, ENGINES, NOW, World, new_ulid, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


def sized(send: NewSend, size: int) -> NewSend:
    return send._replace(envelope=b'"' + b"x" * (size - 2) + b'"')


async def accept(w: World, *sends: NewSend) -> None:
    assert all(isinstance(outcome, Accepted) for outcome in await w.store.messages.accept(sends, NOW))


async def meddle(w: World, statement: str) -> None:
    """Change the tables behind the store's back."""
    store: Any = w.store
    if isinstance(store, SqliteStore):
        await store.database.transaction(lambda raw: raw.execute(statement.format("")))
    else:
        await store.pools.execute(statement.format("mesh."))


async def sweep_all(w: World, *members: Member) -> None:
    """Let everything be received and its retention pass."""
    for one in members:
        rows = await w.store.messages.deliveries_due(w.mesh.id, one.id, exclude=(), limit=10_000)
        await w.store.messages.acknowledge([Ack(w.mesh.id, one.id, tuple(row.delivery_id for row in rows))])
    assert await w.store.upkeep.note_lived_clock(Mark(0, "boot", 0), 0) == 0
    after: int | None = 0
    while after is not None:
        after = (await w.store.retention.sweep_messages(90 * DAY + LATEST_COMMIT_MS, NOW, after)).after


async def test_stored_bytes_are_those_of_the_bodies_that_are_there(engine: str) -> None:
    """Counted for the sender with the accept, once for an id, and taken off with the sweep."""
    async with world(engine) as w:
        bob = await w.join("bob")
        sends = [sized(w.dm(w.owner, bob), 1000), sized(w.post(w.owner, "all"), 500)]
        await accept(w, *sends, sized(w.dm(bob, w.owner), 70))
        await w.store.messages.accept([sends[0]._replace(broker_message_id=new_ulid())], NOW)
        expected = {w.owner.id: 1500, bob.id: 70}
        assert await w.store.usage.stored(w.mesh.id) == expected
        assert await w.store.usage.recount() == 0
        await accept(w, sized(w.dm(bob, w.owner), 30))
        assert await w.store.usage.stored(w.mesh.id) == expected | {bob.id: 100}
        await sweep_all(w, w.owner, bob)
        assert sum((await w.store.usage.stored(w.mesh.id)).values()) == 0
        assert await w.store.usage.recount() == 0


async def test_a_refused_send_is_not_counted(engine: str) -> None:
    """Nothing of it is stored."""
    async with world(engine) as w:
        await w.store.messages.accept([sized(w.post(w.owner, "nowhere"), 900)], NOW)
        assert sum((await w.store.usage.stored(w.mesh.id)).values()) == 0


async def test_a_wrong_count_is_corrected(engine: str) -> None:
    """The check counts the bodies themselves, over any number of batches."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await accept(w, *(sized(w.dm(w.owner, bob), 100) for _ in range(BATCH_ROWS)))
        assert await w.store.usage.stored(w.mesh.id) == {w.owner.id: 100 * BATCH_ROWS}
        await meddle(w, "UPDATE {}stored_bytes SET bytes = 7")
        assert await w.store.usage.stored(w.mesh.id) == {w.owner.id: 7}
        assert await w.store.usage.recount() == 1
        assert await w.store.usage.stored(w.mesh.id) == {w.owner.id: 100 * BATCH_ROWS}
        assert await w.store.usage.recount() == 0
        await meddle(w, "DELETE FROM {}stored_bytes")
        assert await w.store.usage.recount() == 1
        assert await w.store.usage.stored(w.mesh.id) == {w.owner.id: 100 * BATCH_ROWS}


async def test_topics_subscriptions_and_open_invites_are_counted_for_their_member(engine: str) -> None:
    """Of others, of other meshes, and what cannot be used any more, nothing."""
    async with world(engine) as w:
        bob, shares = await w.join("bob"), w.store.usage
        before = await shares.subscriptions_held(w.mesh.id, bob.id)
        for name in ("one", "two"):
            await w.store.topics.create(w.mesh.id, name, "topic", bob.id, NOW)
        await w.store.topics.subscribe(w.mesh.id, "one", bob.id, NOW)
        assert await shares.topics_made(w.mesh.id, bob.id) == 2
        assert await shares.subscriptions_held(w.mesh.id, bob.id) == before + 1
        assert await w.store.topics.mode(w.mesh.id, "two") == "topic"
        assert await w.store.topics.mode(w.mesh.id, "three") is None

        open_before = await shares.invites_open(w.mesh.id, w.owner.ed25519_pubkey, NOW)
        row = InviteRow(new_ulid(), w.mesh.id, "member", w.owner.ed25519_pubkey, NOW + DAY, 1)
        await w.store.members.register_invite(row)
        await w.store.members.register_invite(replace(row, id=new_ulid(), expires_at=NOW - 1))
        revoked = replace(row, id=new_ulid())
        await w.store.members.register_invite(revoked)
        await w.store.members.revoke_invite(w.mesh.id, revoked.id, NOW)
        assert await shares.invites_open(w.mesh.id, w.owner.ed25519_pubkey, NOW) == open_before + 1
        assert await shares.invites_open(w.mesh.id, bob.ed25519_pubkey, NOW) == 0


async def test_audit_events_go_by_lived_time_and_by_number(engine: str) -> None:
    """The oldest first. Wall time decides nothing; events of an older schema age from when they are found."""
    async with world(engine) as w:
        mesh_id = w.mesh.id

        def event(number: int, lived_ms: int) -> AuditEvent:
            return AuditEvent(mesh_id, "tested", None, NOW - 100 * DAY, {"number": number}, lived_ms)

        async def left() -> list[object]:
            events = await w.store.audit.newest(mesh_id, 10_000)
            return [one.data["number"] for one in events if one.kind == "tested"]

        await w.store.audit.write([event(1, 0), event(2, DAY), event(3, 2 * DAY), event(4, 3 * DAY)])
        assert await w.store.audit.prune(mesh_id, 2 * DAY, 0, 100) == 0
        assert await w.store.audit.prune(mesh_id, 9 * DAY, 2 * DAY, 100) == 1
        assert await left() == [4, 3, 1]
        await w.store.audit.write([event(number, 9 * DAY) for number in range(5, 10)])
        assert await w.store.audit.prune(mesh_id, 9 * DAY, 0, 3) == 5
        assert await left() == [9, 8, 7]
        await w.store.audit.write([event(number, 9 * DAY) for number in range(PRUNE_ROWS + 10)])
        assert await w.store.audit.prune(mesh_id, 9 * DAY, 0, 1) == PRUNE_ROWS
