"""The call `mesh_moved`: the statement of the mesh's latest move to another address."""

from __future__ import annotations

import orjson

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only


async def mesh_moved(caller: Caller, params: Params) -> Answer:
    """Return the statement as its owner gave it; null when the mesh has not moved."""
    only(params)
    kept = await caller.context.store.meshes.moved(caller.mesh_id)
    return {"statement": None if kept is None else orjson.loads(kept)}


METHODS: dict[str, Method] = {"mesh_moved": mesh_moved}
