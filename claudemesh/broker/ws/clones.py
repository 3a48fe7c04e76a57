"""Reports of one member on two hosts (docs/spec/broker.md, Two connections of one member).

The first connection is told of a second one at the same time. A host other than the one where a member was
last seen may hold a copy of its keys: all connections of the member are told, and so are the owners and
admins of the mesh, who can revoke it.

A member can connect from another host each time, so the warnings of owners and admins are limited, for it
and for its mesh. The audit has the number of those that are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from claudemesh.broker.connections.clone_policy import is_clone_suspected
from claudemesh.broker.connections.hub import Admission
from claudemesh.broker.context import Context
from claudemesh.broker.ws.principal import Principal
from claudemesh.protocol.frames import encode_event

CONCURRENT = "member_concurrent_connection"
SUSPECTED = "member_clone_suspected"


def report(context: Context, principal: Principal, admission: Admission) -> str | None:
    """Write audit events for a new connection, and tell those that it meets or replaces.

    Returns the event of a suspected clone for the new connection itself, None without a suspicion.
    """
    member, data = principal.member, told(principal, admission)
    frames = []
    if admission.others:
        context.audit.record(principal.mesh.id, CONCURRENT, member.id, **data)
        frames.append(encode_event(CONCURRENT, principal.card() | data))
    suspicion = None
    if is_clone_suspected(member.last_seen_host_fingerprint, principal.host):
        context.audit.record(principal.mesh.id, SUSPECTED, member.id, **data)
        suspicion = encode_event(SUSPECTED, principal.card() | data)
    for connection in context.hub.of_member(principal.mesh.id, member.id):
        if connection.is_open:
            for frame in frames:
                connection.put(frame)
    frames += [suspicion] if suspicion is not None else []
    for connection in admission.replaced:
        # It is not registered any more, and is closed after these frames.
        for frame in frames if connection.is_open else ():
            connection.put(frame)
    return suspicion


def told(principal: Principal, admission: Admission) -> dict[str, str]:
    """Return the fields of a report besides the member."""
    return {"connection_id": principal.connection_id, "outcome": admission.verdict.value}


async def warn(context: Context, principal: Principal, admission: Admission) -> None:
    """Tell the member's connections, and owners and admins, that its keys may have been copied."""
    mesh_id, member_id = principal.mesh.id, principal.member.id
    privileged: Sequence[str] = ()
    try:
        if context.clone_warnings.take(mesh_id, member_id):
            privileged = await context.store.members.privileged(mesh_id)
    except Exception as error:
        # The member is told all the same, and the audit has the event.
        context.degraded.failed("clone_warning", error)
    recipients = sorted({member_id, *privileged})
    data = principal.card() | told(principal, admission)
    context.cluster.broadcast_to(mesh_id, recipients, SUSPECTED, data)
