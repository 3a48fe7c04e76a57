"""`member_vouch`: an owner or admin confirms a member that a restore of the database has lost or revived."""

from __future__ import annotations

from dataclasses import replace

from claudemesh.broker.admission import member_of
from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only
from claudemesh.broker.revoking import tell_revoked
from claudemesh.broker.store.types import Joined, Member
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import check_ulid, check_uuid
from claudemesh.protocol.wire import ROLE_RANK, MemberStatus, Role

_KEYS = ("pubkey", "x25519_pubkey", "x25519_signature", "key_id")
_STATUSES: dict[str, MemberStatus] = {"active": "active", "revoked": "revoked"}


async def vouch(caller: Caller, params: Params) -> Answer:
    """Write the member as the voucher knows it: under its old id, active or revoked.

    A voucher gives no role above its own. A member that is there already stays as it is, unless the voucher
    knows that it was revoked.
    """
    only(params, "member_id", "name", "role", "status", "invite_id", *_KEYS)
    role, status = _role(params), _STATUSES.get(str(params.get("status")))
    if status is None:
        raise InvalidField("invalid_params", "status", "status must be active or revoked.")
    context = caller.context
    body = {**params, "ed25519_pubkey": params.get("pubkey")}
    made = member_of(
        body,
        mesh_id=caller.mesh_id,
        role=role,
        ephemeral=False,
        fresh_id=context.mint(),
        now_ms=context.clock.wall_ms(),
    )
    member = replace(made, id=check_uuid(params.get("member_id"), "member_id"), status=status)
    await _check_voucher(caller, member)
    invite_id = params.get("invite_id")
    outcome = await context.store.restoring.put_back_member(
        member, None if invite_id is None else check_ulid(invite_id, "invite_id")
    )
    if not isinstance(outcome, Joined):
        raise ProtocolError(
            outcome.error,
            "Another member has this id, name or key now. Ask an owner of the mesh for a new invite.",
        )
    if outcome.created:
        _tell_put_back(caller, outcome.member)
    elif status == "revoked" and outcome.member.status == "active":
        await _revoke_again(caller, outcome.member)
    return {"member_id": outcome.member.id, "created": outcome.created}


def _role(params: Params) -> Role:
    role = params.get("role")
    if role == "owner" or role == "admin" or role == "member":
        return role
    raise InvalidField("invalid_params", "role", "role must be owner, admin or member.")


async def _check_voucher(caller: Caller, member: Member) -> None:
    """`ProtocolError` not_authorized unless the caller's role covers the member's, given and present."""
    store = caller.context.store
    voucher = await store.members.find(caller.mesh_id, caller.member_id)
    known = await store.members.by_key(caller.mesh_id, member.ed25519_pubkey) or member
    needed = max(ROLE_RANK["admin"], ROLE_RANK[member.role], ROLE_RANK[known.role])
    if voucher is None or voucher.status != "active" or ROLE_RANK[voucher.role] < needed:
        raise ProtocolError(
            "not_authorized",
            "The caller may not vouch for this member. An owner or admin whose role covers it can.",
        )


def _tell_put_back(caller: Caller, member: Member) -> None:
    context, by, role, status = caller.context, caller.member_id, member.role, member.status
    context.audit.record(member.mesh_id, "member_put_back", member.id, by=by, role=role, status=status)
    context.feed.publish(member.mesh_id)


async def _revoke_again(caller: Caller, member: Member) -> None:
    context, mesh_id = caller.context, member.mesh_id
    await context.store.members.set_status(mesh_id, member.id, "revoked")
    context.audit.record(mesh_id, "member_revoked", member.id, by=caller.member_id, again=True)
    tell_revoked(context, member)


METHODS: dict[str, Method] = {"member_vouch": vouch}
