"""Many members of a mesh, written into a broker's store without any of them joining."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.postgres import members as postgres_members
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.sqlite.members import insert_member
from claudemesh.broker.store.types import Member
from claudemesh.protocol.ids import UlidFactory, uuid_from_ulid
from claudemesh.protocol.keys import Identity
from tests.support.wspeer import make_identity

_new_id = UlidFactory(lambda: time.time_ns() // 1_000_000, secrets.token_bytes).new


def make_members(
    mesh_id: str, count: int, prefix: str = "", *, identities: Sequence[Identity] = (), **fields: Any
) -> list[Member]:
    """Members with keys of their own, or with these; `fields` are the same for all."""
    made = []
    for number in range(count):
        identity = identities[number] if identities else make_identity()
        values: dict[str, Any] = {
            "id": uuid_from_ulid(_new_id()),
            "mesh_id": mesh_id,
            "name": f"{prefix}{number}" if prefix else f"m-{_new_id()}",
            "role": "member",
            "status": "active",
            "ed25519_pubkey": identity.ed25519_pubkey,
            "x25519_pubkey": identity.x25519_pubkey,
            "x25519_signature": identity.x25519_signature,
            "key_id": identity.key_id,
            "ephemeral": False,
            "created_at": time.time_ns() // 1_000_000,
        }
        made.append(Member(**(values | fields)))
    return made


async def add_members(
    store: Store, mesh_id: str, count: int, prefix: str = "", **fields: Any
) -> Sequence[Member]:
    """Write so many members in one transaction, by the store's own statements."""
    members = make_members(mesh_id, count, prefix, **fields)
    if isinstance(store, SqliteStore):

        def write(raw: sqlite3.Connection) -> None:
            for one in members:
                insert_member(raw, one)

        await store.database.transaction(write)
    else:
        assert isinstance(store, PostgresStore)

        async def work(connection: Any) -> None:
            for one in members:
                await postgres_members.insert_member(connection, one)

        await store.pools.transaction(work)
    return members


def fill(database: Path, mesh_id: str, count: int, prefix: str = "", **fields: Any) -> Sequence[Member]:
    """Write so many members into the file of an embedded broker that does not run."""

    async def work() -> Sequence[Member]:
        store = SqliteStore(database)
        await store.open()
        try:
            return await add_members(store, mesh_id, count, prefix, **fields)
        finally:
            await store.close()

    return asyncio.run(work())
