"""The admin API: what the holder of the broker's token may do (broker.md, Operation)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from claudemesh.broker.context import Context
from claudemesh.broker.join import member_of
from claudemesh.broker.store.base import Mesh
from claudemesh.broker.web import JsonAnswer, guarded, only, read_object, require_admin
from claudemesh.protocol import InvalidField, ProtocolError, check_slug, uuid_from_ulid
from claudemesh.runtime.clock import iso_ms


class Admin:
    """Routes below /v1/admin. Every one of them asks for the token first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.create_mesh = guarded(self._create_mesh)
        self.list_meshes = guarded(self._list_meshes)

    async def _create_mesh(self, request: Request) -> Response:
        context = self._context
        require_admin(request, context.admin_token)
        body = await read_object(request, context.settings.limits.body_bytes, "slug", "owner")
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

    async def _list_meshes(self, request: Request) -> Response:
        context = self._context
        require_admin(request, context.admin_token)
        items = [
            {
                "mesh_id": mesh.id,
                "slug": mesh.slug,
                "created_at": iso_ms(mesh.created_at),
                "clone_concurrency_policy": mesh.clone_concurrency_policy,
                "dedupe_retention_mode": mesh.dedupe_retention_mode,
                "dedupe_retention_days": mesh.dedupe_retention_days,
                "message_retention_days": mesh.message_retention_days,
                "rate_limit_per_minute": mesh.rate_limit_per_minute,
                "online": len(context.hub.online(mesh.id)),
            }
            for mesh in await context.store.mesh_list()
        ]
        return JsonAnswer(200, {"items": items, "next": None})
