"""Calls by which owners and admins list and revoke the invites of their mesh."""

from __future__ import annotations

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, count, only, short_text
from claudemesh.protocol.authority import judge_administration
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_ulid

_ID_CHARACTERS = 26


async def list_invites(caller: Caller, params: Params) -> Answer:
    """List the invites by their ids, which ascend with the time of making, beginning behind `after`.

    There is more while `next` is given. Times are Unix milliseconds.
    """
    only(params, "after", "limit")
    await _check_privileged(caller)
    most = caller.context.settings.limits.list_items
    limit = min(count(params, "limit", 0) or most, most)
    after = short_text(params, "after", _ID_CHARACTERS) or ""
    rows = await caller.context.store.members.invites(caller.mesh_id, after=after, limit=limit + 1)
    return {
        "next": rows[limit - 1].id if len(rows) > limit else None,
        "items": [
            {
                "invite_id": row.id,
                # Only the id is known of an invite that was revoked before its first use.
                "role": row.role if row.created_by else None,
                "created_by": row.created_by or None,
                "expires_at": row.expires_at if row.created_by else None,
                "uses": row.used_count,
                "max_uses": row.max_uses if row.created_by else None,
                "revoked_at": row.revoked_at,
            }
            for row in rows[:limit]
        ],
    }


async def revoke_invite(caller: Caller, params: Params) -> Answer:
    """Revoke an invite for good, also one that this broker has not seen yet: its link may be in use later."""
    only(params, "invite_id")
    invite_id = check_ulid(params.get("invite_id"), "invite_id")
    await _check_privileged(caller)
    context = caller.context
    await context.store.members.revoke_invite(caller.mesh_id, invite_id, context.clock.wall_ms())
    context.audit.record(caller.mesh_id, "invite_revoked", caller.member_id, invite_id=invite_id)
    return {"invite_id": invite_id}


async def _check_privileged(caller: Caller) -> None:
    """`ProtocolError` not_authorized unless the caller is an owner or admin at this moment."""
    member = await caller.context.store.members.find(caller.mesh_id, caller.member_id)
    if member is None or member.status != "active":
        raise ProtocolError("not_a_member", "This key is not of an active member of this mesh.")
    refusal = judge_administration(member.role)
    if refusal is not None:
        raise refusal.error()


METHODS: dict[str, Method] = {"invite_list": list_invites, "invite_revoke": revoke_invite}
