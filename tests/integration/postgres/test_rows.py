"""Content of the database: the types of the specification, for any form on the wire."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.types import Accepted, InviteRow, Joined
from claudemesh.protocol.ids import ulid_to_bytes
from tests.integration.postgres.shared import shared
from tests.support.postgres import sql
from tests.support.stores import DAY, NOW, World, database, member, new_mesh, new_ulid


async def test_a_message_leaves_its_rows() -> None:
    """Message ids are UUIDs of the same bits, keys are bytes, times are times, exact to the millisecond."""
    async with shared() as s:
        send = s.one.dm(s.one.owner, s.bob, mentions=(s.bob.ed25519_pubkey, s.one.owner.ed25519_pubkey))
        [outcome] = await s.one.store.messages.accept([send], NOW + 7)
        assert isinstance(outcome, Accepted)
        plain = await asyncpg.connect(s.url)
        dedupe = await plain.fetchrow("SELECT * FROM mesh.client_message_dedupe")
        body = await plain.fetchrow("SELECT * FROM mesh.message_queue")
        history = await plain.fetchrow("SELECT * FROM mesh.message_history")
        delivery = await plain.fetchrow("SELECT * FROM mesh.delivery_queue")
        mentioned = await plain.fetch("SELECT mentioned_member_id FROM mesh.mention_index")
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
        assert {str(row[0]) for row in mentioned} == {s.bob.id, s.one.owner.id}
        assert {row[0].hex() for row in keys} == {s.bob.ed25519_pubkey, s.one.owner.ed25519_pubkey}


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
        await store.close()
        plain = await asyncpg.connect(url)
        assert await plain.fetchval("SELECT expires_at FROM mesh.client_message_dedupe") is None
        assert await plain.fetchval("SELECT topic FROM mesh.topic_message") == "all"
        assert await plain.fetchval("SELECT count(*) FROM mesh.message_queue") == 0
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
