"""The admin API: what the holder of the broker's token may do (broker.md, Operation)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from claudemesh.broker.admission import member_of
from claudemesh.broker.context import Context
from claudemesh.broker.http.admin_auth import AdminGate
from claudemesh.broker.http.replies import Endpoint, JsonAnswer, guarded, only, read_object
from claudemesh.broker.mesh_policies import POLICIES, with_policies
from claudemesh.broker.store.types import Member, Mesh
from claudemesh.protocol import (
    CloseCode,
    InvalidField,
    ProtocolError,
    check_slug,
    check_ulid,
    uuid_from_ulid,
)
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.digits import whole_number

MAX_AUDIT = 1000
MAX_PAGE = 1000
_LONGEST_NAME = 64


class Admin:
    """Routes below /v1/admin. Every one of them asks for the token first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gate = AdminGate(context.admin_token, context.clock)

    def table(self) -> dict[str, dict[str, Endpoint]]:
        """Return the routes: path -> method -> endpoint."""
        return {
            "/v1/admin/meshes": {
                "GET": self._asked(self._list_meshes),
                "POST": self._told(self._create_mesh, "slug", "owner"),
            },
            "/v1/admin/meshes/set": {"POST": self._told(self._set_mesh, "mesh", *POLICIES)},
            "/v1/admin/members": {"GET": self._asked(self._list_members)},
            "/v1/admin/members/revoke": {"POST": self._told(self._revoke_member, "mesh", "member")},
            "/v1/admin/invites": {"GET": self._asked(self._list_invites)},
            "/v1/admin/invites/revoke": {"POST": self._told(self._revoke_invite, "mesh", "invite_id")},
            "/v1/admin/audit": {"GET": self._asked(self._list_audit)},
            "/v1/admin/jobs": {"GET": self._asked(self._list_jobs)},
            "/v1/admin/jobs/run": {"POST": self._told(self._run_job, "job")},
        }

    def _asked(self, answer: Callable[[Mapping[str, str]], Awaitable[Response]]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            self._gate.require(request)
            return await answer(request.query_params)

        return guarded(endpoint, self._context.degraded)

    def _told(self, answer: Callable[[Mapping[str, Any]], Awaitable[Response]], *known: str) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            context = self._context
            self._gate.require(request)
            return await answer(await read_object(request, context.settings.limits.body_bytes, *known))

        return guarded(endpoint, self._context.degraded)

    async def _create_mesh(self, body: Mapping[str, Any]) -> Response:
        context = self._context
        slug = check_slug(body.get("slug"))
        given = body.get("owner")
        if not isinstance(given, dict):
            raise InvalidField("invalid_owner", "owner", "owner must be an object with a name and keys")
        only(given, "name", "ed25519_pubkey", "x25519_pubkey", "x25519_signature", "key_id")
        mesh = Mesh(id=uuid_from_ulid(context.mint()), slug=slug, created_at=context.clock.wall_ms())
        owner = member_of(given, mesh_id=mesh.id, role="owner", ephemeral=False, context=context)
        if not await context.store.mesh_create(mesh, owner):
            raise ProtocolError("slug_taken", f"this broker has a mesh {slug} already: choose another slug")
        context.audit.record(mesh.id, "mesh_created", owner.id, slug=slug)
        return JsonAnswer(201, {"mesh_id": mesh.id, "slug": slug, "member_id": owner.id})

    async def _list_meshes(self, query: Mapping[str, str]) -> Response:
        after, limit = _page(query)
        meshes = [mesh for mesh in await self._context.store.mesh_list() if mesh.slug > after]
        items = [await self._mesh_item(mesh) for mesh in meshes[:limit]]
        return _listed(items, meshes[limit - 1].slug if len(meshes) > limit else None)

    async def _set_mesh(self, body: Mapping[str, Any]) -> Response:
        """Change policies; connections that are made from then on go by them."""
        mesh = await self._mesh(body.get("mesh"))
        changes = {name: value for name, value in body.items() if name != "mesh"}
        changed = with_policies(mesh, changes)
        await self._context.store.mesh_update(changed)
        self._context.audit.record(mesh.id, "mesh_changed", None, **changes)
        return JsonAnswer(200, await self._mesh_item(changed))

    async def _list_members(self, query: Mapping[str, str]) -> Response:
        mesh = await self._mesh(query.get("mesh"))
        after, limit = _page(query)
        online = await self._online(mesh.id)
        members = await self._context.store.listing.by_name(mesh.id, after, limit + 1)
        items = [_member_item(member, member.id in online) for member in members[:limit]]
        return _listed(items, members[limit - 1].name if len(members) > limit else None)

    async def _revoke_member(self, body: Mapping[str, Any]) -> Response:
        """Refuse a member's key from now on, and end its connections; what it sent before stays."""
        context = self._context
        mesh = await self._mesh(body.get("mesh"))
        member = await self._member(mesh, body.get("member"))
        if member.status == "active":
            await context.store.member_set_status(mesh.id, member.id, "revoked")
            context.audit.record(mesh.id, "member_revoked", member.id)
            context.cluster.changed(mesh.id)
        context.cluster.disconnect(mesh.id, member.id, CloseCode.REVOKED, "this member was revoked")
        return JsonAnswer(200, {"member_id": member.id, "name": member.name, "status": "revoked"})

    async def _list_invites(self, query: Mapping[str, str]) -> Response:
        mesh = await self._mesh(query.get("mesh"))
        after, limit = _page(query)
        invites = await self._context.store.invite_list(mesh.id, after=after, limit=limit + 1)
        return _listed(
            [
                {
                    "invite_id": invite.id,
                    # Of an invite that was revoked unseen nothing else is known.
                    "role": invite.role if invite.created_by else None,
                    "created_by": invite.created_by or None,
                    "expires_at": iso_ms(invite.expires_at) if invite.created_by else None,
                    "uses": invite.used_count,
                    "max_uses": invite.max_uses,
                    "revoked_at": None if invite.revoked_at is None else iso_ms(invite.revoked_at),
                }
                for invite in invites[:limit]
            ],
            invites[limit - 1].id if len(invites) > limit else None,
        )

    async def _revoke_invite(self, body: Mapping[str, Any]) -> Response:
        context = self._context
        mesh = await self._mesh(body.get("mesh"))
        # One that this broker has never heard of is revoked as well: its link may be on its way.
        invite_id = check_ulid(body.get("invite_id"), "invite_id")
        if not await context.store.invite_revoke(mesh.id, invite_id, context.clock.wall_ms()):
            raise ProtocolError("not_found", "this invite is another mesh's: name that mesh")
        context.audit.record(mesh.id, "invite_revoked", None, invite_id=invite_id)
        return JsonAnswer(200, {"invite_id": invite_id, "status": "revoked"})

    async def _list_audit(self, query: Mapping[str, str]) -> Response:
        mesh = await self._mesh(query.get("mesh"))
        limit = whole_number(query.get("limit", "100"), MAX_AUDIT)
        if not limit:
            raise InvalidField("invalid_limit", "limit", f"limit must be a number from 1 to {MAX_AUDIT}")
        events = await self._context.store.audit_list(mesh.id, limit)
        return _listed(
            [
                {
                    "kind": event.kind,
                    "member_id": event.member_id,
                    "created_at": iso_ms(event.created_at),
                    "data": dict(event.data),
                }
                for event in events
            ]
        )

    async def _list_jobs(self, query: Mapping[str, str]) -> Response:
        """List the jobs, each with its last run; `age_s` is lived time."""
        now_ms = self._context.lived.now_ms()
        return _listed(
            [
                {
                    "job": name,
                    "every_s": every_ms // 1000,
                    "last_run_at": None if run is None else iso_ms(run.finished_at),
                    "age_s": None if run is None else max(0, now_ms - run.lived_ms) // 1000,
                    "count": None if run is None else run.count,
                    "found": None if run is None else run.found,
                }
                for name, every_ms, run in await self._context.jobs.schedule()
            ]
        )

    async def _run_job(self, body: Mapping[str, Any]) -> Response:
        jobs = self._context.jobs
        name = body.get("job")
        if name not in jobs.names:
            raise InvalidField("invalid_job", "job", f"job must be one of {', '.join(jobs.names)}")
        outcome = await jobs.run(str(name))
        findings = [
            {"kind": finding.kind, "broker_message_id": finding.broker_message_id}
            for finding in outcome.findings
        ]
        return JsonAnswer(
            200, {"job": name, "count": outcome.count, "found": outcome.found, "findings": findings}
        )

    async def _mesh(self, slug: object) -> Mesh:
        wanted = check_slug(slug)
        for mesh in await self._context.store.mesh_list():
            if mesh.slug == wanted:
                return mesh
        raise ProtocolError("not_found", f"this broker has no mesh {wanted}")

    async def _member(self, mesh: Mesh, wanted: object) -> Member:
        if isinstance(wanted, str):
            name = wanted.removeprefix("@").lower()
            member = await self._context.store.listing.find(mesh.id, name)
            if member is not None:
                return member
        raise ProtocolError("not_found", "this mesh has no such member: give a name, a key or a member id")

    async def _online(self, mesh_id: str) -> Set[str]:
        """Return who is connected, at this broker or another one."""
        leased = await self._context.store.presence_online(mesh_id, self._context.lived.now_ms())
        return leased | self._context.hub.online(mesh_id)

    async def _mesh_item(self, mesh: Mesh) -> dict[str, object]:
        return {
            "mesh_id": mesh.id,
            "slug": mesh.slug,
            "created_at": iso_ms(mesh.created_at),
            "clone_concurrency_policy": mesh.clone_concurrency_policy,
            "dedupe_retention_mode": mesh.dedupe_retention_mode,
            "dedupe_retention_days": mesh.dedupe_retention_days,
            "message_retention_days": mesh.message_retention_days,
            "rate_limit_per_minute": mesh.rate_limit_per_minute,
            "member_rate_limit_per_minute": mesh.member_rate_limit_per_minute,
            "member_bytes_per_minute": mesh.member_bytes_per_minute,
            "stored_bytes": mesh.stored_bytes,
            "member_stored_bytes": mesh.member_stored_bytes,
            "member_topics": mesh.member_topics,
            "member_subscriptions": mesh.member_subscriptions,
            "member_invites": mesh.member_invites,
            "audit_retention_days": mesh.audit_retention_days,
            "audit_events": mesh.audit_events,
            "online": len(await self._online(mesh.id)),
        }


def _member_item(member: Member, online: bool) -> dict[str, object]:
    seen = member.last_seen_at
    return {
        "member_id": member.id,
        "name": member.name,
        "role": member.role,
        "status": member.status,
        "online": online,
        "pubkey": member.ed25519_pubkey,
        "ephemeral": member.ephemeral,
        "last_seen_at": None if seen is None else iso_ms(seen),
    }


def _page(query: Mapping[str, str]) -> tuple[str, int]:
    """Return where a page begins and how many entries it may have. `InvalidField`."""
    after = query.get("after", "")
    if len(after) > _LONGEST_NAME or not after.isprintable():
        raise InvalidField("invalid_after", "after", "after must be the next of the page before")
    limit = whole_number(query.get("limit", str(MAX_PAGE)), MAX_PAGE)
    if not limit:
        raise InvalidField("invalid_limit", "limit", f"limit must be a number from 1 to {MAX_PAGE}")
    return after, limit


def _listed(items: list[dict[str, object]], following: str | None = None) -> Response:
    return JsonAnswer(200, {"items": items, "next": following})
