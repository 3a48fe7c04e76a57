"""Admin routes: operation of a broker by the holder of its admin token (docs/spec/broker.md, Operation)."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from msgspec import Struct

from claudemesh.broker.admission import member_of
from claudemesh.broker.context import Context
from claudemesh.broker.http.schemas import (
    InviteIdBody,
    JobBody,
    MemberBody,
    MeshBody,
    OwnerBody,
    PoliciesBody,
    given,
)
from claudemesh.broker.mesh_policies import with_policies
from claudemesh.broker.revoking import tell_revoked
from claudemesh.broker.store.types import Member, Mesh
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import check_slug, check_ulid, uuid_from_ulid
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.web.bodies import to_struct
from claudemesh.runtime.web.query import Parameter, cursor, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Handler, Request, Route

MAX_AUDIT = 1000
MAX_PAGE = 1000
_MOST_OWED = 1000
# A name of 63 characters, a slash and a member id.
_LONGEST_CURSOR = 100


class AdminRoutes:
    """Handlers of /v1/admin. Each route requires the admin token."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create_mesh(self, request: Request) -> Reply:
        """Create a mesh and its first member, the owner."""
        context, body = self._context, given(request.body)
        slug = check_slug(body.get("slug"))
        if not isinstance(body.get("owner"), dict):
            raise InvalidField("invalid_owner", "owner", "owner must be an object with a name and keys.")
        card = given(to_struct(body["owner"], OwnerBody))
        mesh = Mesh(id=uuid_from_ulid(context.mint()), slug=slug, created_at=context.clock.wall_ms())
        owner = member_of(
            card,
            mesh_id=mesh.id,
            role="owner",
            ephemeral=False,
            fresh_id=context.mint(),
            now_ms=context.clock.wall_ms(),
        )
        if not await context.store.meshes.create(mesh, owner):
            raise ProtocolError("slug_taken", f"This broker has a mesh {slug} already. Choose another slug.")
        context.audit.record(mesh.id, "mesh_created", owner.id, slug=slug)
        return Reply(201, {"mesh_id": mesh.id, "slug": slug, "member_id": owner.id})

    async def list_meshes(self, request: Request) -> Reply:
        """Return the meshes by slug, with their policies."""
        after, limit = request.query["after"], request.query["limit"]
        meshes = [mesh for mesh in await self._context.store.meshes.all() if mesh.slug > after]
        items = [await self._mesh_item(mesh) for mesh in meshes[:limit]]
        return _listed(items, meshes[limit - 1].slug if len(meshes) > limit else None)

    async def set_mesh(self, request: Request) -> Reply:
        """Change policies of a mesh; they apply to connections that are opened from then on."""
        body = given(request.body)
        mesh = await self._mesh(body.get("mesh"))
        changes = {name: value for name, value in body.items() if name != "mesh"}
        changed = with_policies(mesh, changes)
        await self._context.store.meshes.update(changed)
        self._context.audit.record(mesh.id, "mesh_changed", None, **changes)
        return Reply(200, await self._mesh_item(changed))

    async def list_members(self, request: Request) -> Reply:
        """Return the members of a mesh by name; `owed` counts their deliveries, up to 1000."""
        mesh = await self._mesh(request.query["mesh"])
        after, limit = request.query["after"], request.query["limit"]
        online = await self._online(mesh.id)
        members = await self._context.store.members.page(mesh.id, after, limit + 1)
        shown = members[:limit]
        owed = await self._context.store.messages.deliveries_owed([one.id for one in shown], _MOST_OWED)
        items = [_member_item(one, one.id in online, owed[one.id]) for one in shown]
        return _listed(items, _behind(members[limit - 1]) if len(members) > limit else None)

    async def revoke_member(self, request: Request) -> Reply:
        """Revoke a member: refuse its key, and close its connections. Its messages stay."""
        context, body = self._context, given(request.body)
        mesh = await self._mesh(body.get("mesh"))
        member = await self._member(mesh, body.get("member"))
        if member.status == "active":
            await context.store.members.set_status(mesh.id, member.id, "revoked")
            context.audit.record(mesh.id, "member_revoked", member.id)
        tell_revoked(context, member)
        return Reply(200, {"member_id": member.id, "name": member.name, "status": "revoked"})

    async def list_invites(self, request: Request) -> Reply:
        """Return the invites of a mesh."""
        mesh = await self._mesh(request.query["mesh"])
        after, limit = request.query["after"], request.query["limit"]
        invites = await self._context.store.members.invites(mesh.id, after=after, limit=limit + 1)
        return _listed(
            [
                {
                    "invite_id": invite.id,
                    # Only the id is known of an invite that was revoked before its first use.
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

    async def revoke_invite(self, request: Request) -> Reply:
        """Revoke an invite, also one that this broker has not seen yet: its link may be in use later."""
        context, body = self._context, given(request.body)
        mesh = await self._mesh(body.get("mesh"))
        invite_id = check_ulid(body.get("invite_id"), "invite_id")
        await context.store.members.revoke_invite(mesh.id, invite_id, context.clock.wall_ms())
        context.audit.record(mesh.id, "invite_revoked", None, invite_id=invite_id)
        return Reply(200, {"invite_id": invite_id, "status": "revoked"})

    async def list_audit(self, request: Request) -> Reply:
        """Return the newest audit events of a mesh."""
        mesh = await self._mesh(request.query["mesh"])
        events = await self._context.store.audit.newest(mesh.id, request.query["limit"])
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

    async def list_jobs(self, request: Request) -> Reply:
        """Return the jobs, each with its last run; `age_s` is its age in lived seconds."""
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

    async def run_job(self, request: Request) -> Reply:
        """Run a job now, and return its outcome."""
        jobs = self._context.jobs
        name = given(request.body).get("job")
        if name not in jobs.names:
            raise InvalidField("invalid_job", "job", f"job must be one of {', '.join(jobs.names)}.")
        outcome = await jobs.run(str(name))
        findings = [
            {"kind": finding.kind, "broker_message_id": finding.broker_message_id}
            for finding in outcome.findings
        ]
        return Reply(200, {"job": name, "count": outcome.count, "found": outcome.found, "findings": findings})

    async def _mesh(self, slug: object) -> Mesh:
        return await mesh_named(self._context, slug)

    async def _member(self, mesh: Mesh, wanted: object) -> Member:
        if isinstance(wanted, str):
            name = wanted.removeprefix("@").lower()
            member = await self._context.store.members.find(mesh.id, name)
            if member is not None:
                return member
        raise ProtocolError("not_found", "This mesh has no such member. Give a name, a key or a member id.")

    async def _online(self, mesh_id: str) -> Set[str]:
        """Return the ids of the members that are connected to this broker or another one."""
        leased = await self._context.store.presence.online(mesh_id, self._context.lived.now_ms())
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


async def mesh_named(context: Context, slug: object) -> Mesh:
    """Return the mesh with a slug. `ProtocolError` not_found."""
    wanted = check_slug(slug)
    for mesh in await context.store.meshes.all():
        if mesh.slug == wanted:
            return mesh
    raise ProtocolError("not_found", f"This broker has no mesh {wanted}.")


def _member_item(member: Member, online: bool, owed: int) -> dict[str, object]:
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
        "owed": owed,
    }


def _behind(member: Member) -> str:
    """Return the place behind a member in the list by name. A name may have had several members."""
    return f"{member.name}/{member.id}"


def _listed(items: list[dict[str, object]], following: str | None = None) -> Reply:
    return Reply(200, {"items": items, "next": following})


def _cursor(text: str) -> str:
    if len(text) > _LONGEST_CURSOR or not text.isprintable():
        raise ValueError
    return text


def _limit(most: int, default: int) -> Parameter:
    return whole_number("limit", 1, most, default, code="invalid_limit")


_MESH = Parameter("mesh", {"type": "string"}, "a mesh's slug", str)
_PAGE = (replace(cursor(_cursor, code="invalid_after"), default=""), _limit(MAX_PAGE, MAX_PAGE))


def _get(path: str, summary: str, handler: Handler, query: tuple[Parameter, ...] = ()) -> Route:
    return Route("GET", f"/v1/admin/{path}", summary, handler=handler, query=query, admin=True)


def _post(path: str, summary: str, handler: Handler, body: type[Struct]) -> Route:
    return Route("POST", f"/v1/admin/{path}", summary, handler=handler, body=body, admin=True)


ROUTES = (
    _get("meshes", "List meshes", AdminRoutes.list_meshes, _PAGE),
    _post("meshes", "Create a mesh", AdminRoutes.create_mesh, MeshBody),
    _post("meshes/set", "Change policies of a mesh", AdminRoutes.set_mesh, PoliciesBody),
    _get("members", "List members", AdminRoutes.list_members, (_MESH, *_PAGE)),
    _post("members/revoke", "Revoke a member", AdminRoutes.revoke_member, MemberBody),
    _get("invites", "List invites", AdminRoutes.list_invites, (_MESH, *_PAGE)),
    _post("invites/revoke", "Revoke an invite", AdminRoutes.revoke_invite, InviteIdBody),
    _get("audit", "List audit events", AdminRoutes.list_audit, (_MESH, _limit(MAX_AUDIT, 100))),
    _get("jobs", "List jobs", AdminRoutes.list_jobs),
    _post("jobs/run", "Run a job", AdminRoutes.run_job, JobBody),
)
