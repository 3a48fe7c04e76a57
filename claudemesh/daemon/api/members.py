"""Member routes: the acts of this member. They are served on the unix socket only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from claudemesh.daemon.api.parameters import member_cursor
from claudemesh.daemon.api.schemas_members import (
    AcceptBody,
    LeaveBody,
    Left,
    MemberChanged,
    MemberPage,
    RenameBody,
    ReplacementBody,
    RevokeBody,
    RoleBody,
    Stated,
)
from claudemesh.daemon.identity.acting import MemberActs
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.own import OwnMember
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.identity.presence import Presence
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.web.paging import MAX_PAGE, Item, page, page_limit
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Handler, Request, Route


class MemberRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/members, and of the routes by which this member renames itself or leaves."""

    acts: MemberActs
    own: OwnMember
    directory: Directory
    presence: Presence

    async def list_members(self, request: Request) -> Reply:
        """Return the members that have not left, revoked ones too, from the directory."""
        await self.presence.known()
        everyone = self.directory.everyone()

        async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
            behind = [peer for peer in everyone if after is None or _place(peer) > after]
            await self.presence.learn_seen(behind[:limit])
            items = [self._item(peer) for peer in behind[:limit]]
            return items, _cursor(items[-1]) if len(behind) > limit else None

        return await page(request, fetch, _cursor, request.query["limit"])

    async def revoke(self, request: Request) -> Reply:
        """Revoke a member. The broker refuses its key at once, and peers do too."""
        body: RevokeBody = request.body
        return Reply(200, (await self.acts.revoke(body.member, force=body.force)).card())

    async def give_role(self, request: Request) -> Reply:
        """Give a member another role."""
        body: RoleBody = request.body
        return Reply(200, (await self.acts.give_role(body.member, body.role, force=body.force)).card())

    async def rename(self, request: Request) -> Reply:
        """Give this member another name, and release the one that it had."""
        body: RenameBody = request.body
        name = await self.acts.rename(body.name)
        own = self.own.membership
        peer = self.directory.by_id(own.member_id)
        pubkey = "" if peer is None else peer.pubkey
        return Reply(200, {"name": name, "member_id": own.member_id, "pubkey": pubkey})

    async def accept(self, request: Request) -> Reply:
        """Accept that a pinned name belongs to another member now."""
        body: AcceptBody = request.body
        return Reply(200, self.acts.accept(body.name).card())

    async def sign_replacement(self, request: Request) -> Reply:
        """Sign that another member takes a name over, for an invite. It needs no broker."""
        body: ReplacementBody = request.body
        statement = self.acts.replacement(body.name, body.invite_id)
        return Reply(200, {"statement": statement.to_dict()})

    async def leave(self, request: Request) -> Reply:
        """Leave the mesh for good; this reply is the last of the daemon."""
        body: LeaveBody = request.body
        own = self.own.membership
        await self.acts.leave(force=body.force)
        return Reply(200, {"mesh": own.slug, "name": own.name, "status": "left"})

    def _item(self, peer: Peer) -> dict[str, Any]:
        seen_ms = self.presence.last_seen_ms(peer)
        revocation = peer.revocation
        return {
            **peer.card(),
            "role": peer.role,
            "status": peer.status,
            "online": self.presence.is_online(peer.member_id),
            "ephemeral": peer.ephemeral,
            "revoked_by": None if revocation is None else revocation.signer,
            "last_seen_at": None if seen_ms is None else iso_ms(seen_ms),
        }


def _place(peer: Peer) -> str:
    return f"{peer.name.lower()}/{peer.member_id}"


def _cursor(item: Item) -> str:
    return f"{item['name'].lower()}/{item['member_id']}"


def _post(
    path: str, summary: str, reply: type[Struct], handler: Handler, body: type[Struct], *errors: int
) -> Route:
    return Route(
        "POST", path, summary, {200: reply}, handler, body=body, errors=(*errors, 503), socket_only=True
    )


ROUTES = (
    Route(
        "GET",
        "/v1/members",
        "List the members that have not left, revoked ones too",
        {200: MemberPage},
        MemberRoutes.list_members,
        query=(page_limit(MAX_PAGE), member_cursor()),
    ),
    _post(
        "/v1/members/revoke", "Revoke a member", MemberChanged, MemberRoutes.revoke, RevokeBody, 403, 404, 409
    ),
    _post(
        "/v1/members/role",
        "Give a member another role",
        MemberChanged,
        MemberRoutes.give_role,
        RoleBody,
        403,
        404,
        409,
    ),
    _post(
        "/v1/members/replacement",
        "Sign that another member takes a name over",
        Stated,
        MemberRoutes.sign_replacement,
        ReplacementBody,
        403,
        404,
        409,
    ),
    _post("/v1/rename", "Rename this member", MemberChanged, MemberRoutes.rename, RenameBody, 409),
    _post(
        "/v1/peers/accept",
        "Accept another member under a pinned name",
        MemberChanged,
        MemberRoutes.accept,
        AcceptBody,
        404,
    ),
    _post("/v1/leave", "Leave the mesh", Left, MemberRoutes.leave, LeaveBody, 409),
)
