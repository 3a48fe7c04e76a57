"""Moves of meshes to other addresses: the part of the store of meshes that keeps their statements."""

from __future__ import annotations

from typing import Protocol


class MoveStore(Protocol):
    """The statement of the latest move of each mesh, as JSON."""

    async def move(self, mesh_id: str, at_ms: int, statement: str) -> str:
        """Keep the statement of a move unless a later one is kept. Return the one that is kept then."""
        ...

    async def moved(self, mesh_id: str) -> str | None:
        """Return the statement of the latest move, None when the mesh has not moved."""
        ...
