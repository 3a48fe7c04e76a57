"""The call `rotate_keys`: a member replaces its keys, and its connection goes on."""

from __future__ import annotations

from claudemesh.broker import rotation
from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only
from claudemesh.protocol.errors import ProtocolError


async def rotate_keys(caller: Caller, params: Params) -> Answer:
    """Replace the caller's keys by those to which its statements lead. A repetition changes nothing."""
    only(params, *rotation.FIELDS)
    holder = await rotation.holder_of(caller.context, caller.mesh_id, params)
    if holder is None or holder.id != caller.member_id:
        raise ProtocolError(
            "not_authorized", "The statement is not about the caller's key. A member rotates its own keys."
        )
    member = await rotation.rotate(caller.context, caller.mesh_id, params, connection_id=caller.connection_id)
    return {"member_id": member.id, "pubkey": member.ed25519_pubkey}


METHODS: dict[str, Method] = {"rotate_keys": rotate_keys}
