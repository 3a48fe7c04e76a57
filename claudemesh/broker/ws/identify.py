"""Identification of a connection: the member that its hello names and proves."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from claudemesh.broker.addresses import Arrival
from claudemesh.broker.context import Context
from claudemesh.broker.store.types import Member, Mesh
from claudemesh.broker.ws import handshake
from claudemesh.broker.ws.frame_socket import Closing
from claudemesh.protocol.frames import Frame, Hello, Revoked


async def identify(
    context: Context, hello: Hello, nonce: bytes, arrived: Arrival, say: Callable[[Frame], None]
) -> tuple[Mesh, Member]:
    """Return the mesh and the member of a hello. `Closing` refuses it.

    A revoked member gets the statement that has revoked it first, if a member has signed one.
    """
    handshake.refuse_if(handshake.check_hello(hello, nonce, context.addresses, arrived))
    mesh = await context.store.meshes.get(hello.mesh_id)
    member = await context.store.members.by_any_key(hello.mesh_id, hello.pubkey)
    if mesh is None or member is None:
        raise Closing(*handshake.NOT_A_MEMBER)
    if member.status == "revoked":
        statement = await context.store.acts.revocation(member)
        if statement is not None:
            say(Revoked(orjson.loads(statement)))
    handshake.refuse_if(handshake.check_member(hello, member))
    return mesh, member
