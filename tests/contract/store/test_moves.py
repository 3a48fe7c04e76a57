"""The statement of a mesh's latest move: a later one replaces it, an earlier one does not."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.stores import ENGINES, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def test_the_latest_statement_is_kept(engine: str) -> None:
    """In any order, also at once; a repetition changes nothing."""
    async with world(engine) as w:
        meshes, mesh_id = w.store.meshes, w.mesh.id
        assert await meshes.moved(mesh_id) is None
        assert await meshes.move(mesh_id, 5, "five") == "five"
        assert await meshes.move(mesh_id, 5, "five") == "five"
        assert await meshes.move(mesh_id, 4, "four") == "five"
        assert await meshes.move(mesh_id, 5, "another five") == "five"
        await asyncio.gather(*(meshes.move(mesh_id, at_ms, str(at_ms)) for at_ms in (9, 7, 12, 8)))
        assert await meshes.moved(mesh_id) == "12"
