"""Meshes and their policies on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.decisions import policy_values
from claudemesh.broker.store.postgres.members import insert_member
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import mesh_of
from claudemesh.broker.store.types import DEFAULT_TOPIC, Member, Mesh


class PostgresMeshes:
    """Implements `MeshStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def create(self, mesh: Mesh, owner: Member) -> bool:
        async def work(connection: Any) -> bool:
            tag = await connection.execute(
                _Q["mesh_insert"],
                mesh.id,
                mesh.slug,
                *policy_values(mesh),
                mesh.created_at,
            )
            if tag != "INSERT 0 1":
                return False
            topic = (mesh.id, DEFAULT_TOPIC, "topic", owner.id, mesh.created_at)
            await connection.execute(_Q["topic_insert"], *topic)
            await insert_member(connection, owner)
            return True

        return await self._db.transaction(work)

    async def get(self, mesh_id: str) -> Mesh | None:
        rows = await self._db.fetch(_Q["mesh_get"], mesh_id)
        return mesh_of(rows[0]) if rows else None

    async def update(self, mesh: Mesh) -> bool:
        count = await self._db.execute(
            _Q["mesh_update"],
            *policy_values(mesh),
            mesh.id,
        )
        return count > 0

    async def move(self, mesh_id: str, at_ms: int, statement: str) -> str:
        async def work(connection: Any) -> str:
            await connection.execute(_Q["mesh_move"], mesh_id, at_ms, statement)
            kept: str = await connection.fetchval(_Q["mesh_moved"], mesh_id)
            return kept

        return await self._db.transaction(work)

    async def moved(self, mesh_id: str) -> str | None:
        rows = await self._db.fetch(_Q["mesh_moved"], mesh_id)
        return str(rows[0]["statement"]) if rows else None

    async def all(self) -> Sequence[Mesh]:
        return [mesh_of(row) for row in await self._db.fetch(_Q["mesh_list"])]
