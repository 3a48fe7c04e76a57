"""Meshes and their policies on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from claudemesh.broker.store.decisions import policy_values
from claudemesh.broker.store.sqlite.members import insert_member
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import DEFAULT_TOPIC, Member, Mesh
from claudemesh.runtime.sqlite import Database


class SqliteMeshes:
    """Implements `MeshStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, mesh: Mesh, owner: Member) -> bool:

        def work(raw: sqlite3.Connection) -> bool:
            values = (
                mesh.id,
                mesh.slug,
                *policy_values(mesh),
                mesh.created_at,
            )
            if raw.execute(_Q["mesh_insert"], values).rowcount == 0:
                return False
            topic = (mesh.id, DEFAULT_TOPIC, "topic", owner.id, mesh.created_at)
            raw.execute(_Q["topic_insert"], topic)
            insert_member(raw, owner)
            return True

        return await self._db.transaction(work)

    async def get(self, mesh_id: str) -> Mesh | None:
        row = await self._db.run(lambda raw: raw.execute(_Q["mesh_get"], (mesh_id,)).fetchone())
        return None if row is None else Mesh(*row)

    async def update(self, mesh: Mesh) -> bool:
        values = (
            *policy_values(mesh),
            mesh.id,
        )
        return await self._db.transaction(lambda raw: raw.execute(_Q["mesh_update"], values).rowcount > 0)

    async def move(self, mesh_id: str, at_ms: int, statement: str) -> str:
        def work(raw: sqlite3.Connection) -> str:
            raw.execute(_Q["mesh_move"], (mesh_id, at_ms, statement))
            kept: str = raw.execute(_Q["mesh_moved"], (mesh_id,)).fetchone()[0]
            return kept

        return await self._db.transaction(work)

    async def moved(self, mesh_id: str) -> str | None:
        row = await self._db.run(lambda raw: raw.execute(_Q["mesh_moved"], (mesh_id,)).fetchone())
        return None if row is None else row[0]

    async def all(self) -> Sequence[Mesh]:
        rows = await self._db.run(lambda raw: raw.execute(_Q["mesh_list"]).fetchall())
        return [Mesh(*row) for row in rows]
