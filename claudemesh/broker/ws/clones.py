"""Reports of a member on two hosts (docs/spec/broker.md, Two connections of one member).

A second connection at the same time is told to the first. A host other than the one that a member was last
seen on may be a copy of its keys: the member hears of it on all of its connections, and so do the owners and
admins of the mesh, who can revoke it.
"""

from __future__ import annotations

from claudemesh.broker.connections.clone_policy import is_clone_suspected
from claudemesh.broker.connections.hub import Admission
from claudemesh.broker.context import Context
from claudemesh.broker.ws.principal import Membership
from claudemesh.protocol.frames import encode_event

CONCURRENT = "member_concurrent_connection"
SUSPECTED = "member_clone_suspected"


def report(context: Context, membership: Membership, admission: Admission) -> str | None:
    """Audit what a newcomer means, tell connections that it meets or replaces; returns the suspicion."""
    member, data = membership.member, told(membership, admission)
    frames = []
    if admission.others:
        context.audit.record(membership.mesh.id, CONCURRENT, member.id, **data)
        frames.append(encode_event(CONCURRENT, membership.card() | data))
    suspicion = None
    if is_clone_suspected(member.last_seen_host_fingerprint, membership.host):
        context.audit.record(membership.mesh.id, SUSPECTED, member.id, **data)
        suspicion = encode_event(SUSPECTED, membership.card() | data)
    for link in context.hub.links(membership.mesh.id, member.id):
        if link.is_open:
            for frame in frames:
                link.put(frame)
    frames += [suspicion] if suspicion is not None else []
    for link in admission.replaced:
        # It is out of the hub, and closes when this has left.
        for frame in frames if link.is_open else ():
            link.put(frame)
    return suspicion


def told(membership: Membership, admission: Admission) -> dict[str, str]:
    """Return what is said of a connection besides whose it is."""
    return {"connection_id": membership.connection_id, "outcome": admission.verdict.value}


async def warn(context: Context, membership: Membership, admission: Admission) -> None:
    """Tell the member's connections, and owners and admins, that it may have been copied."""
    mesh_id, member_id = membership.mesh.id, membership.member.id
    try:
        privileged = await context.store.members.privileged(mesh_id)
    except Exception as error:
        # The member hears of it, and the audit has it.
        context.degraded.failed("clone_warning", error)
        privileged = ()
    hearing = sorted({member_id, *privileged})
    data = membership.card() | told(membership, admission)
    context.cluster.tell_members(mesh_id, hearing, SUSPECTED, data)
