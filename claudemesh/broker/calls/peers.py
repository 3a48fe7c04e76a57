"""The directory of a mesh, and what a member says about itself."""

from __future__ import annotations

from base64 import b64encode

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only, short_text
from claudemesh.broker.store.base import Member
from claudemesh.protocol import InvalidField

_SUMMARY_CHARACTERS = 512
_STATUS_CHARACTERS = 64


async def peers(caller: Caller, params: Params) -> Answer:
    """List the members with their keys. An invisible one shows its keys, but not its presence."""
    only(params)
    context = caller.context
    members = await context.store.member_list(caller.mesh_id)
    leased = await context.store.presence_online(caller.mesh_id, context.lived.now_ms())
    online = leased | context.hub.online(caller.mesh_id)
    return {"items": [_peer(member, member.id in online, caller.member_id) for member in members]}


async def profile(caller: Caller, params: Params) -> Answer:
    """Change what is given of the caller's own summary, status and visibility."""
    only(params, "summary", "status", "visible")
    visible = params.get("visible")
    if visible is not None and not isinstance(visible, bool):
        raise InvalidField("invalid_params", "visible", "visible must be true or false")
    await caller.context.store.member_set_profile(
        caller.mesh_id,
        caller.member_id,
        summary=short_text(params, "summary", _SUMMARY_CHARACTERS),
        status=short_text(params, "status", _STATUS_CHARACTERS),
        visible=visible,
    )
    return {}


def _peer(member: Member, online: bool, caller_id: str) -> Answer:
    shown = member.visible or member.id == caller_id
    return {
        "name": member.name,
        "pubkey": member.ed25519_pubkey,
        "x25519_pubkey": member.x25519_pubkey,
        "x25519_signature": b64encode(member.x25519_signature).decode(),
        "key_id": member.key_id,
        "member_id": member.id,
        "role": member.role,
        "status": member.status,
        "online": online and shown,
        "presence_status": member.presence_status if shown else None,
        "summary": member.summary if shown else None,
        "visible": member.visible,
        "last_seen_at": member.last_seen_at if shown else None,
        "earlier_keys": list(member.earlier_pubkeys),
    }


METHODS: dict[str, Method] = {"peers": peers, "profile": profile}
