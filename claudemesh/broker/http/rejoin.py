"""Members that a restore of the database has lost: they ask, and an owner's or admin's daemon vouches.

The broker cannot prove by itself that somebody was a member: its records were restored with the rest. A lost
member presents the invite by which it had joined and a proof that it holds its keys. That admits nobody. The
broker passes the request to the owners and admins that are connected. Their daemons have the member's id,
name and keys pinned from before. One that knows exactly this member answers with `member_vouch`
(calls/vouching.py). Only then the member is written, active or revoked as the voucher knows it.

So an invite that has expired, was used up or revoked admits nobody here, and a member that was revoked after
the copy does not come back. Nothing is kept between the request and the answer: the lost member asks again.
"""

from __future__ import annotations

from base64 import b64encode

from starlette.requests import Request
from starlette.responses import Response

from claudemesh.broker.addresses import arrival_of
from claudemesh.broker.admission import (
    AUDIENCE_CHARACTERS,
    check_proof,
    member_of,
    refusal,
    signature_of,
    text_of,
    verified_invite,
)
from claudemesh.broker.context import Context
from claudemesh.broker.http.replies import JsonAnswer, guarded, read_object
from claudemesh.broker.store.types import Member
from claudemesh.protocol import Invite, ProtocolError, check_uuid
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.rejoin")

EVENT = "member_unconfirmed"
# So many requests are passed on in so many seconds; the others ask again.
_PASSED_ON = 64
_PERIOD_S = 5.0


class Rejoining:
    """The route by which a lost member asks. It authenticates by signatures alone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._budget = _Budget(context.clock)
        self.rejoin = guarded(self._rejoin, context.degraded)

    async def _rejoin(self, request: Request) -> Response:
        body = await read_object(
            request,
            self._context.settings.limits.body_bytes,
            *("invite", "name", "member_id", "ed25519_pubkey", "x25519_pubkey", "x25519_signature"),
            *("key_id", "proof", "audience"),
        )
        invite = verified_invite(body)
        member_id = check_uuid(body.get("member_id"), "member_id")
        proof = signature_of(body.get("proof"), "proof")
        context = self._context
        member = member_of(body, mesh_id=invite.mesh_id, role=invite.role, ephemeral=False, context=context)
        audience = None
        if body.get("audience") is not None:
            audience = text_of(body["audience"], "audience", AUDIENCE_CHARACTERS)
        check_proof(invite, member, proof, context.addresses, arrival_of(request.scope), audience)
        mesh = await context.store.mesh_get(invite.mesh_id)
        if mesh is None or mesh.slug != invite.slug:
            raise ProtocolError("mesh_not_found", "this broker has no such mesh")
        known = await context.store.member_by_key(mesh.id, member.ed25519_pubkey)
        if known is not None:
            if known.status != "active":
                raise ProtocolError("not_a_member", f"this member is {known.status}: ask for a new invite")
            return JsonAnswer(200, {"status": "active", "member_id": known.id})
        if await context.store.restoring.sealing_key_taken(mesh.id, member.x25519_pubkey):
            raise refusal("key_taken")
        await self._pass_on(invite, member, member_id)
        return JsonAnswer(202, {"status": "unconfirmed", "member_id": member_id})

    async def _pass_on(self, invite: Invite, member: Member, member_id: str) -> None:
        """Ask the owners and admins that are connected, if a member of this mesh made the invite."""
        context = self._context
        listing = context.store.listing
        inviter = await listing.of_any_key(invite.mesh_id, invite.inviter_pubkey)
        if inviter is None or not self._budget.take():
            return
        vouchers = await listing.privileged(invite.mesh_id)
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
        context.cluster.tell_members(invite.mesh_id, vouchers, EVENT, card)


class _Budget:
    """Bounds what strangers can make owners' daemons do: one invite is enough to ask under many keys."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._left = _PASSED_ON

    def take(self) -> bool:
        """Whether one more request may be passed on now."""
        now = self._clock.monotonic()
        if now - self._began >= _PERIOD_S:
            self._began, self._left = now, _PASSED_ON
        self._left -= 1
        return self._left >= 0
