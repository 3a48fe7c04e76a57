"""Invite routes: owners and admins list and revoke the invites of their mesh. Each asks the broker."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from claudemesh.daemon.api.schemas import Body, Moment, Ulid
from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol import replies
from claudemesh.protocol.ids import check_ulid
from claudemesh.protocol.invite_replies import InviteEntry, invite_list
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.web.paging import page_limit
from claudemesh.runtime.web.query import cursor
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

Count = Annotated[int, Meta(ge=0)]


class InviteItem(Struct):
    """An invite that the broker knows. `created_by` is the name of its maker, or the key of an unknown one.

    Of an invite that was revoked before the broker has seen it, only the id is known.
    """

    invite_id: str
    role: str | None
    created_by: str | None
    expires_at: Moment | None
    uses: Count
    max_uses: Count | None
    revoked_at: Moment | None


class InvitePage(Struct):
    """Invites, the oldest first; pass `next` as `after` to get the next page."""

    items: list[InviteItem]
    next: str | None


class InviteRevokeBody(Body):
    """An invite to revoke, by its id."""

    invite_id: Ulid


class InviteRevoked(Struct):
    """No host can join by the invite any more."""

    invite_id: str


class InviteRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/invites."""

    directory: Directory
    call: Ask

    async def list_invites(self, request: Request) -> Reply:
        """Return the invites of the mesh."""
        given = {"after": request.query["after"], "limit": request.query["limit"]}
        params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        found = await self.call("invite_list", params, invite_list)
        return Reply(200, {"items": [self._item(entry) for entry in found.items], "next": found.next})

    async def revoke(self, request: Request) -> Reply:
        """Revoke an invite."""
        body: InviteRevokeBody = request.body
        await self.call("invite_revoke", {"invite_id": body.invite_id}, replies.nothing)
        return Reply(200, {"invite_id": body.invite_id})

    def _item(self, entry: InviteEntry) -> dict[str, Any]:
        maker = None if entry.created_by is None else self.directory.by_key(entry.created_by)
        return {
            "invite_id": entry.invite_id,
            "role": entry.role,
            "created_by": entry.created_by if maker is None else maker.name,
            "expires_at": None if entry.expires_at is None else iso_ms(entry.expires_at),
            "uses": entry.uses,
            "max_uses": entry.max_uses,
            "revoked_at": None if entry.revoked_at is None else iso_ms(entry.revoked_at),
        }


_ERRORS = (403, 503)

ROUTES = (
    Route(
        "GET",
        "/v1/invites",
        "List the mesh's invites, as an owner or admin",
        {200: InvitePage},
        InviteRoutes.list_invites,
        query=(page_limit(), cursor(lambda text: check_ulid(text, "after"))),
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/v1/invites/revoke",
        "Revoke an invite, as an owner or admin",
        {200: InviteRevoked},
        InviteRoutes.revoke,
        body=InviteRevokeBody,
        errors=_ERRORS,
    ),
)
