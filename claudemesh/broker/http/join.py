"""Join routes: registration of signed invites, and admission of members by them.

See docs/spec/lifecycle.md, Joining.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from claudemesh.broker.addresses import arrival_of
from claudemesh.broker.admission import (
    AUDIENCE_CHARACTERS,
    check_proof,
    dialled_of,
    expired,
    invite_row,
    life_of,
    member_of,
    refusal,
    signature_of,
    text_of,
    verified_invite,
)
from claudemesh.broker.context import Context
from claudemesh.broker.http.schemas import InviteBody, JoinBody, given
from claudemesh.broker.store.decisions import may_invite
from claudemesh.broker.store.types import Joined, Mesh
from claudemesh.protocol.base64 import from_base64
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_uuid
from claudemesh.protocol.invites import Invite
from claudemesh.runtime.web.query import Parameter
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route


class JoinRoutes:
    """Handlers that register invites and admit members. Both authenticate by signature only."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def register_invite(self, request: Request) -> Reply:
        """Register an invite that its inviter has signed: 201 when it is new, 200 when it is known."""
        invite = verified_invite(given(request.body))
        mesh = await self._mesh_of(invite)
        await self._check_inviter(mesh, invite)
        now_ms = self._context.clock.wall_ms()
        if invite.expires_at_ms <= now_ms:
            raise expired(invite, now_ms)
        count = await self._context.store.usage.invites_open(mesh.id, invite.inviter_pubkey, now_ms)
        if count >= mesh.member_invites:
            raise ProtocolError(
                "too_many_invites",
                f"A member may have {mesh.member_invites} open invites in this mesh. Revoke one, or have "
                "member_invites raised.",
            )
        members = self._context.store.members
        # Expired invites do not count as open, so they need a bound of their own.
        await members.forget_invites(mesh.id, invite.inviter_pubkey, now_ms, mesh.member_invites)
        created = await members.register_invite(invite_row(invite))
        return Reply(201 if created else 200, {"invite_id": invite.invite_id, "mesh_id": mesh.id})

    async def challenge(self, request: Request) -> Reply:
        """Return the key for proofs of possession, and whether `?audience=host:port` is this broker."""
        answer: dict[str, object] = {"challenge_key": await self._context.challenge.pubkey()}
        audience = request.query["audience"]
        if audience is not None:
            arrived, addresses = arrival_of(request.scope), self._context.addresses
            answer |= {
                "addresses": addresses.shown(arrived),
                "accepted": addresses.accepts(audience, arrived),
            }
        return Reply(200, answer)

    async def join(self, request: Request) -> Reply:
        """Admit a member by an invite: 201 when it is new, 200 when it has joined before."""
        try:
            return await self._joined(request)
        except ProtocolError as error:
            self._context.metrics.joins.labels(error.code).inc()
            raise

    async def _joined(self, request: Request) -> Reply:
        body = given(request.body)
        invite = verified_invite(body)
        ephemeral, ttl_ms = life_of(body, invite)
        proof = signature_of(body.get("proof"), "proof")
        possession = from_base64(body.get("x25519_proof"))
        context = self._context
        member = member_of(
            body,
            mesh_id=invite.mesh_id,
            role=invite.role,
            ephemeral=ephemeral,
            fresh_id=context.mint(),
            now_ms=context.clock.wall_ms(),
        )
        if invite.name is not None and invite.name.lower() != member.name.lower():
            raise refusal("invite_for_another_name")
        if invite.replacement is not None:
            member = replace(member, statements=(orjson.dumps(invite.replacement.to_dict()).decode(),))
        if ttl_ms is not None:
            member = replace(member, ends_lived_ms=context.lived.now_ms() + ttl_ms)
        check_proof(invite, member, proof, context.addresses, arrival_of(request.scope), dialled_of(body))
        await context.challenge.check(member.ed25519_pubkey, member.x25519_pubkey, possession)
        if body.get("member_id") is not None:
            # A member that a restore has lost keeps its id, because others have pinned its key by it.
            member = replace(member, id=check_uuid(body["member_id"], "member_id"))
        mesh = await self._mesh_of(invite)
        # An earlier key of the inviter is judged with the invite, by the store.
        await self._check_inviter(mesh, invite, may_be_earlier=True)
        now_ms = context.clock.wall_ms()
        outcome = await context.store.members.join(invite_row(invite), member, now_ms)
        if not isinstance(outcome, Joined):
            if outcome.error == "invite_expired":
                raise expired(invite, now_ms)
            raise refusal(outcome.error)
        if outcome.created and invite.replacement is not None:
            context.audit.record(
                mesh.id,
                "member_replaced",
                outcome.member.id,
                old_member_id=invite.replacement.subject,
                invite_id=invite.invite_id,
                signed_by=invite.inviter_pubkey,
            )
        return self._welcome(mesh, outcome)

    def _welcome(self, mesh: Mesh, joined: Joined) -> Reply:
        member = joined.member
        context = self._context
        context.metrics.joins.labels("joined" if joined.created else "again").inc()
        if joined.created:
            context.audit.record(mesh.id, "member_joined", member.id, role=member.role)
            context.feed.publish(mesh.id)
        answer = {
            "mesh_id": mesh.id,
            "slug": mesh.slug,
            "member_id": member.id,
            "name": member.name,
            "role": member.role,
            "created": joined.created,
        }
        return Reply(201 if joined.created else 200, answer)

    async def _mesh_of(self, invite: Invite) -> Mesh:
        mesh = await self._context.store.meshes.get(invite.mesh_id)
        if mesh is None or mesh.slug != invite.slug:
            raise ProtocolError(
                "mesh_not_found", "This broker has no such mesh. Check the broker of the invite."
            )
        return mesh

    async def _check_inviter(self, mesh: Mesh, invite: Invite, *, may_be_earlier: bool = False) -> None:
        members = self._context.store.members
        find = members.by_any_key if may_be_earlier else members.by_key
        inviter = await find(mesh.id, invite.inviter_pubkey)
        if inviter is None or not may_invite(inviter.status, inviter.role, invite.role):
            raise refusal("not_authorized")


def _audience(text: str) -> str:
    return text_of(text, "audience", AUDIENCE_CHARACTERS)


_AUDIENCE = Parameter(
    "audience",
    {"type": "string"},
    f"text of 1 to {AUDIENCE_CHARACTERS} characters without control characters",
    _audience,
    code="invalid_audience",
)

ROUTES = (
    Route("POST", "/v1/join", "Join a mesh by an invite", handler=JoinRoutes.join, body=JoinBody),
    Route(
        "GET",
        "/v1/join/challenge",
        "Get the key for proofs of possession",
        handler=JoinRoutes.challenge,
        query=(_AUDIENCE,),
    ),
    Route("POST", "/v1/invites", "Register an invite", handler=JoinRoutes.register_invite, body=InviteBody),
)
