"""Joining: invites that carry their own proof, and members that come by them (lifecycle.md, Joining)."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from claudemesh.broker.addresses import arrival_of
from claudemesh.broker.admission import (
    AUDIENCE_CHARACTERS,
    check_proof,
    expired,
    invite_row,
    member_of,
    refusal,
    signature_of,
    text_of,
    verified_invite,
)
from claudemesh.broker.context import Context
from claudemesh.broker.http.replies import JsonAnswer, guarded, read_object
from claudemesh.broker.store.types import Joined, Member, Mesh
from claudemesh.protocol import (
    InvalidField,
    Invite,
    ProtocolError,
    challenge_keypair,
    check_uuid,
    verify_possession,
)
from claudemesh.protocol.base64 import from_base64
from claudemesh.protocol.wire import ROLE_RANK


class Joining:
    """The routes by which invites and members come in. Both authenticate by signature alone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._challenge_privkey, self._challenge_pubkey = challenge_keypair(context.admin_token)
        self.challenge = guarded(self._challenge, context.degraded)
        self.join = guarded(self._join, context.degraded)
        self.register_invite = guarded(self._register_invite, context.degraded)

    async def _register_invite(self, request: Request) -> Response:
        body = await read_object(request, self._context.settings.limits.body_bytes, "invite")
        invite = verified_invite(body)
        mesh = await self._mesh_of(invite)
        await self._check_inviter(mesh, invite)
        now_ms = self._context.clock.wall_ms()
        if invite.expires_at_ms <= now_ms:
            raise expired(invite, now_ms)
        count = await self._context.store.shares.invites_open(mesh.id, invite.inviter_pubkey, now_ms)
        if count >= mesh.member_invites:
            raise ProtocolError(
                "too_many_invites",
                f"a member may have {mesh.member_invites} open invites in this mesh: revoke one, or have "
                "member_invites raised",
            )
        created = await self._context.store.invite_register(invite_row(invite))
        return JsonAnswer(201 if created else 200, {"invite_id": invite.invite_id, "mesh_id": mesh.id})

    async def _challenge(self, request: Request) -> Response:
        """Tell the key for proofs of possession, and whether `?audience=host:port` is this broker."""
        answer: dict[str, object] = {"challenge_key": self._challenge_pubkey}
        if "audience" in request.query_params:
            audience = text_of(request.query_params["audience"], "audience", AUDIENCE_CHARACTERS)
            arrived, addresses = arrival_of(request.scope), self._context.addresses
            answer |= {
                "addresses": addresses.shown(arrived),
                "accepted": addresses.accepts(audience, arrived),
            }
        return JsonAnswer(200, answer)

    async def _join(self, request: Request) -> Response:
        try:
            return await self._joined(request)
        except ProtocolError as error:
            self._context.metrics.joins.labels(error.code).inc()
            raise

    async def _joined(self, request: Request) -> Response:
        body = await read_object(
            request,
            self._context.settings.limits.body_bytes,
            *("invite", "name", "ed25519_pubkey", "x25519_pubkey", "x25519_signature"),
            *("key_id", "ephemeral", "proof", "x25519_proof", "member_id"),
        )
        invite = verified_invite(body)
        ephemeral = body.get("ephemeral", False)
        if not isinstance(ephemeral, bool):
            raise InvalidField("invalid_ephemeral", "ephemeral", "ephemeral must be true or false")
        proof = signature_of(body.get("proof"), "proof")
        possession = from_base64(body.get("x25519_proof"))
        context = self._context
        member = member_of(
            body,
            mesh_id=invite.mesh_id,
            role=invite.role,
            ephemeral=ephemeral,
            context=context,
        )
        check_proof(invite, member, proof, context.addresses, arrival_of(request.scope))
        self._check_possession(member, possession)
        if body.get("member_id") is not None:
            # A member that a restore has lost keeps its id, by which others have pinned its key.
            member = replace(member, id=check_uuid(body["member_id"], "member_id"))
        mesh = await self._mesh_of(invite)
        await self._check_inviter(mesh, invite)
        now_ms = context.clock.wall_ms()
        outcome = await context.store.join(invite_row(invite), member, now_ms)
        if not isinstance(outcome, Joined):
            if outcome.error == "invite_expired":
                raise expired(invite, now_ms)
            raise refusal(outcome.error)
        return self._welcome(mesh, outcome)

    def _check_possession(self, member: Member, proof: bytes | None) -> None:
        keys = (member.ed25519_pubkey, member.x25519_pubkey)
        if proof is None or not verify_possession(self._challenge_privkey, *keys, proof):
            raise ProtocolError(
                "bad_signature",
                "x25519_proof does not show that the private key of x25519_pubkey is yours: "
                "join with a claudemesh of this broker's version. Brokers on one database need the same "
                "admin token",
            )

    def _welcome(self, mesh: Mesh, joined: Joined) -> Response:
        member = joined.member
        context = self._context
        context.metrics.joins.labels("joined" if joined.created else "again").inc()
        if joined.created:
            context.audit.record(mesh.id, "member_joined", member.id, role=member.role)
            context.cluster.changed(mesh.id)
        answer = {
            "mesh_id": mesh.id,
            "slug": mesh.slug,
            "member_id": member.id,
            "name": member.name,
            "role": member.role,
            "created": joined.created,
        }
        return JsonAnswer(201 if joined.created else 200, answer)

    async def _mesh_of(self, invite: Invite) -> Mesh:
        mesh = await self._context.store.mesh_get(invite.mesh_id)
        if mesh is None or mesh.slug != invite.slug:
            raise ProtocolError("mesh_not_found", "this broker has no such mesh: check the invite's broker")
        return mesh

    async def _check_inviter(self, mesh: Mesh, invite: Invite) -> None:
        inviter = await self._context.store.member_by_key(mesh.id, invite.inviter_pubkey)
        if inviter is None or inviter.status != "active" or inviter.role == "member":
            raise refusal("not_authorized")
        if ROLE_RANK[invite.role] > ROLE_RANK[inviter.role]:
            raise refusal("not_authorized")
