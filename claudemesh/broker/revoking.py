"""News of a revocation, for the hosts of the revoked member, the other members, and the other brokers."""

from __future__ import annotations

from typing import Any

from claudemesh.broker.context import Context
from claudemesh.broker.store.types import Member
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.events import KEYPAIR_REVOKED, MEMBER_REVOKED
from claudemesh.protocol.statements import Statement


def tell_revoked(context: Context, member: Member, statement: Statement | None = None) -> None:
    """Tell all members, then close every connection of the revoked one, on each broker.

    Its status is committed before: a connection that was not reached is refused what it asks for. Without a
    statement an operator has revoked the member.
    """
    mesh_id = member.mesh_id
    told: dict[str, Any] = {"member_id": member.id, "name": member.name, "pubkey": member.ed25519_pubkey}
    if statement is not None:
        told["statement"] = statement.to_dict()
    context.feed.publish(mesh_id)
    context.keys.departed(mesh_id, member.id)
    context.cluster.broadcast_to(mesh_id, (member.id,), MEMBER_REVOKED, told)
    context.cluster.broadcast(mesh_id, KEYPAIR_REVOKED, told, besides=member.id)
    context.cluster.disconnect(mesh_id, member.id, CloseCode.REVOKED, "This member was revoked.")
