"""Rejoin route: readmission of members that a restore of the database has lost, if an owner or admin vouches.

The broker's records were restored too, so they do not prove a lost membership. A lost member presents the
invite by which it had joined, and a proof that it holds its keys. This alone admits no member: the broker
passes the request to the owners and admins that are connected. Their daemons have pinned the member's id,
name and keys before. A daemon that has pinned exactly this member answers with `member_vouch`
(calls/vouching.py). Then the member is written, active or revoked as the voucher has it.

Therefore an invite that has expired, or was used up or revoked, admits no member here, and a member that was
revoked after the backup stays revoked. The broker keeps no state between the request and the answer: the lost
member repeats its request.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter

from claudemesh.broker.addresses import arrival_of
from claudemesh.broker.admission import (
    check_proof,
    dialled_of,
    member_of,
    refusal,
    signature_of,
    verified_invite,
)
from claudemesh.broker.context import Context
from claudemesh.broker.http.schemas import RejoinBody, given
from claudemesh.broker.store.types import Member
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_uuid
from claudemesh.protocol.invites import Invite
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

log = get_logger("broker.rejoin")

EVENT = "member_unconfirmed"
# Rate limit: requests that are passed on in each period. The others are repeated by their members.
_OF_ONE_MESH, _OF_ONE_INVITE = 128, 64
_PERIOD_S = 5.0


class RejoinRoutes:
    """Handler of POST /v1/rejoin. It authenticates by signatures only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._budget = _Budget(context.clock)

    async def rejoin(self, request: Request) -> Reply:
        """Pass the request on: 202 until a voucher has answered, then 200."""
        body = given(request.body)
        invite = verified_invite(body)
        if invite.ephemeral_only:
            raise refusal("invite_ephemeral_only")
        member_id = check_uuid(body.get("member_id"), "member_id")
        proof = signature_of(body.get("proof"), "proof")
        context = self._context
        member = member_of(
            body,
            mesh_id=invite.mesh_id,
            role=invite.role,
            ephemeral=False,
            fresh_id=context.mint(),
            now_ms=context.clock.wall_ms(),
        )
        check_proof(invite, member, proof, context.addresses, arrival_of(request.scope), dialled_of(body))
        mesh = await context.store.meshes.get(invite.mesh_id)
        if mesh is None or mesh.slug != invite.slug:
            raise ProtocolError("mesh_not_found", "This broker has no such mesh.")
        known = await context.store.members.by_key(mesh.id, member.ed25519_pubkey)
        if known is not None:
            if known.status != "active":
                raise ProtocolError("not_a_member", f"This member is {known.status}. Ask for a new invite.")
            return Reply(200, {"status": "active", "member_id": known.id})
        if await context.store.restoring.sealing_key_taken(mesh.id, member.x25519_pubkey):
            raise refusal("key_taken")
        await self._pass_on(invite, member, member_id)
        return Reply(202, {"status": "unconfirmed", "member_id": member_id})

    async def _pass_on(self, invite: Invite, member: Member, member_id: str) -> None:
        """Ask the connected owners and admins to vouch, if a member of this mesh made the invite."""
        context = self._context
        members = context.store.members
        inviter = await members.by_any_key(invite.mesh_id, invite.inviter_pubkey)
        if inviter is None or not self._budget.take(invite):
            return
        vouchers = await members.privileged(invite.mesh_id)
        card = {
            "member_id": member_id,
            "name": member.name,
            "pubkey": member.ed25519_pubkey,
            "x25519_pubkey": member.x25519_pubkey,
            "x25519_signature": b64encode(member.x25519_signature).decode(),
            "key_id": member.key_id,
            "invite_id": invite.invite_id,
        }
        log.info("member_unconfirmed", member_id=member_id, vouchers=len(vouchers))
        context.cluster.broadcast_to(invite.mesh_id, vouchers, EVENT, card)


class _Budget:
    """Rate limit of the requests that reach owners' daemons: one invite is enough to ask under many keys.

    Each mesh has its own, and one invite takes half of it at most: requests that are made up keep neither
    another mesh waiting nor the members of another invite.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._taken: Counter[str] = Counter()

    def take(self, invite: Invite) -> bool:
        """Take one of the period's requests; return whether there was one left."""
        now = self._clock.monotonic()
        if now - self._began >= _PERIOD_S:
            self._began = now
            self._taken.clear()
        taken, by_invite = self._taken, f"{invite.mesh_id} {invite.invite_id}"
        if taken[invite.mesh_id] >= _OF_ONE_MESH or taken[by_invite] >= _OF_ONE_INVITE:
            return False
        taken[invite.mesh_id] += 1
        taken[by_invite] += 1
        return True


ROUTES = (
    Route(
        "POST",
        "/v1/rejoin",
        "Ask for readmission after a restore",
        handler=RejoinRoutes.rejoin,
        body=RejoinBody,
    ),
)
