"""Content of the database: the types of the specification, for any form on the wire."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.postgres.accept import arguments_of_one, outcomes_of
from claudemesh.broker.store.postgres.queries import QUERIES
from claudemesh.broker.store.types import Accepted, InviteRow, Joined, NewSend
from claudemesh.protocol.ids import ulid_to_bytes
from tests.integration.postgres.shared import shared
from tests.support.postgres import sql
from tests.support.stores import DAY, NOW, World, database, member, new_mesh, new_ulid


async def test_a_message_leaves_its_rows() -> None:
    """Message ids are UUIDs of the same bits, keys are bytes, times are times, exact to the millisecond."""
    async with shared() as s:
        send = s.one.dm(s.one.owner, s.bob)
        [outcome] = await s.one.store.messages.accept([send], NOW + 7)
        assert isinstance(outcome, Accepted)
        plain = await asyncpg.connect(s.url)
        dedupe = await plain.fetchrow("SELECT * FROM mesh.client_message_dedupe")
        body = await plain.fetchrow("SELECT * FROM mesh.message_queue")
        history = await plain.fetchrow("SELECT * FROM mesh.message_history")
        delivery = await plain.fetchrow("SELECT * FROM mesh.delivery_queue")
        keys = await plain.fetch("SELECT ed25519_pubkey FROM mesh.member_key ORDER BY created_at")
        await plain.close()
        broker_message_id = UUID(bytes=ulid_to_bytes(send.broker_message_id))
        assert dedupe["broker_message_id"] == body["id"] == history["broker_message_id"] == broker_message_id
        assert delivery["broker_message_id"] == broker_message_id
        assert str(dedupe["mesh_id"]) == s.one.mesh.id
        assert dedupe["history_id"] == history["history_id"] == outcome.history_id
        assert dedupe["request_fingerprint"] == send.request_fingerprint
        assert round(dedupe["first_seen_at"].timestamp() * 1000) == NOW + 7
        assert (
            round(dedupe["expires_at"].timestamp() * 1000) == NOW + 7 + s.one.mesh.dedupe_retention_days * DAY
        )
        assert (dedupe["destination_kind"], dedupe["destination_ref"]) == ("dm", s.bob.ed25519_pubkey)
        assert bytes(body["envelope"]) == send.envelope
        assert (str(delivery["recipient_member_id"]), delivery["priority"]) == (s.bob.id, 1)
        assert {row[0].hex() for row in keys} == {s.bob.ed25519_pubkey, s.one.owner.ed25519_pubkey}


# Rows of a message, without the ids and numbers that differ from one message to the next.
_ROWS_OF_A_MESSAGE = """
SELECT to_jsonb(d) - '{client_message_id, broker_message_id, history_id}'::text[],
       to_jsonb(b) - '{id, client_message_id}'::text[],
       to_jsonb(h) - '{history_id, broker_message_id}'::text[],
       to_jsonb(q) - '{delivery_id, broker_message_id}'::text[]
FROM mesh.client_message_dedupe AS d
JOIN mesh.message_queue AS b ON b.id = d.broker_message_id AND b.client_message_id = d.client_message_id
JOIN mesh.message_history AS h ON h.history_id = d.history_id AND h.broker_message_id = d.broker_message_id
JOIN mesh.delivery_queue AS q ON q.broker_message_id = d.broker_message_id
WHERE d.client_message_id = $1
"""


async def test_a_message_leaves_the_same_rows_alone_and_in_a_batch() -> None:
    """A lone dm has a statement of its own, which writes what the function for batches writes."""
    async with shared() as s:
        alone, *batch = [s.one.dm(s.bob, s.one.owner, priority=2) for _ in range(3)]
        values = arguments_of_one(alone, NOW)
        assert values is not None
        rows = await s.connection.fetch(QUERIES["accept_dm"], *values, None)
        outcomes = [*outcomes_of(rows, [alone], NOW), *await s.one.store.messages.accept(batch, NOW)]
        written = []
        for send, outcome in zip([alone, *batch], outcomes, strict=True):
            assert isinstance(outcome, Accepted)
            [row] = await s.connection.fetch(_ROWS_OF_A_MESSAGE, send.key.client_message_id)
            written.append((tuple(row), [one.recipient_member_id for one in outcome.deliveries]))
        assert written[0] == written[1] == written[2]


async def test_a_lone_message_that_is_not_simply_accepted_is_left_to_the_function() -> None:
    """The statement then writes nothing and returns no row."""
    async with shared() as s:
        w = s.one
        eve = await w.join("eve")
        known = w.dm(w.owner, s.bob)
        await w.store.messages.accept([known], NOW)
        await w.store.members.set_status(w.mesh.id, eve.id, "revoked")
        sends: list[NewSend] = [known, w.dm(eve, s.bob), w.dm(w.owner, eve)]
        strange = known.key._replace(mesh_id="01899e2d-0000-7000-8000-00000000ffff")
        sends += [w.dm(w.owner, s.bob)._replace(destination_ref="00" * 32), known._replace(key=strange)]
        before = [await s.count(table) for table in ("client_message_dedupe", "message_queue")]
        for send in sends:
            values = arguments_of_one(send, NOW)
            assert values is not None
            assert await s.connection.fetch(QUERIES["accept_dm"], *values, None) == []
        # Nor does a server that was started at another time accept anything.
        values = arguments_of_one(w.dm(w.owner, s.bob), NOW)
        assert values is not None
        assert await s.connection.fetch(QUERIES["accept_dm"], *values, "another start") == []
        assert [await s.count(table) for table in ("client_message_dedupe", "message_queue")] == before
        for other in (w.post(w.owner, "all"), w.to_queue(w.owner, "jobs")):
            assert arguments_of_one(other, NOW) is None


async def test_a_permanent_mesh_s_ids_never_expire() -> None:
    """`expires_at` is null; a topic post's body is in its own table."""
    async with database() as url:
        store = PostgresStore(url)
        await store.open()
        mesh = new_mesh(dedupe_retention_mode="permanent")
        owner = member(mesh.id, "alice", role="owner")
        await store.meshes.create(mesh, owner)
        w = World(store, mesh, owner)
        assert isinstance((await store.messages.accept([w.post(owner, "all")], NOW))[0], Accepted)
        assert isinstance((await store.messages.accept([w.dm(owner, owner)], NOW))[0], Accepted)
        await store.close()
        plain = await asyncpg.connect(url)
        expiries = await plain.fetch("SELECT expires_at FROM mesh.client_message_dedupe")
        assert [row[0] for row in expiries] == [None, None]
        assert await plain.fetchval("SELECT topic FROM mesh.topic_message") == "all"
        assert await plain.fetchval("SELECT count(*) FROM mesh.message_queue") == 1
        await plain.close()


async def test_a_broker_goes_on_when_a_newer_one_adds_columns_to_its_tables() -> None:
    """A migration only ever adds: what runs meanwhile reads what it knows."""
    async with database() as url:
        store = PostgresStore(url)
        await store.open()
        try:
            mesh = new_mesh()
            owner = member(mesh.id, "alice", role="owner")
            await store.meshes.create(mesh, owner)
            for _ in range(8):
                assert await store.members.by_key(mesh.id, owner.ed25519_pubkey) == owner
            for table in ("member", "member_key", "mesh", "invite", "topic"):
                await sql(url, f"ALTER TABLE mesh.{table} ADD COLUMN later integer DEFAULT 7", "SELECT 1")
            assert await store.members.by_key(mesh.id, owner.ed25519_pubkey) == owner
            assert await store.meshes.get(mesh.id) == mesh
            assert (await store.directory.page(mesh.id, None, limit=5)).members == (owner,)
            row = InviteRow(new_ulid(), mesh.id, "member", owner.ed25519_pubkey, NOW + 1000, 1)
            assert isinstance(await store.members.join(row, member(mesh.id, "bob"), NOW), Joined)
        finally:
            await store.close()
