"""Peer routes: the members of the mesh, and this member's own profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from claudemesh.daemon.api.parameters import name_cursor
from claudemesh.daemon.api.schemas import PeerPage, ProfileBody, ProfileUpdated
from claudemesh.daemon.api.schemas_members import Profile
from claudemesh.daemon.identity.changes import sessions_of
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.own import OwnMember
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.identity.profile import ProfileUpdates
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import has_control
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.web.paging import MAX_PAGE, Item, page, page_limit
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route


class PeerRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/peers and /v1/profile."""

    directory: Directory
    presence: Presence
    profile: ProfileUpdates
    own: OwnMember

    async def list_peers(self, request: Request) -> Reply:
        """Return the active members by name, from the directory; it answers without the broker too."""
        await self.presence.known()

        async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
            found = self.directory.page(after, limit + 1)
            await self.presence.learn_seen(found[:limit])
            items = [self._item(peer) for peer in found[:limit]]
            return items, _cursor(items[-1]) if len(found) > limit else None

        return await page(request, fetch, _cursor, request.query["limit"])

    async def set_profile(self, request: Request) -> Reply:
        """Set the given fields of this member's profile. Requires the broker."""
        body: ProfileBody = request.body
        given: dict[str, Any] = {"summary": body.summary, "status": body.status, "visible": body.visible}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if isinstance(value, str) and has_control(value):
                raise InvalidField("invalid_field", name, f"{name} may hold no control character.")
        await self.profile.set(given)
        self.directory.note_profile(self.own.membership.member_id, **given)
        return Reply(200, {"updated": sorted(given)})

    async def get_profile(self, request: Request) -> Reply:
        """Return this member's own profile, as the directory has it; it answers without the broker too."""
        own = self.own.membership
        peer = self.directory.by_id(own.member_id)
        return Reply(
            200,
            {
                "name": own.name,
                "role": own.role,
                "summary": None if peer is None else peer.summary,
                "status": None if peer is None else peer.presence_status,
                "visible": peer is None or peer.visible,
            },
        )

    def _item(self, peer: Peer) -> dict[str, Any]:
        online = self.presence.is_online(peer.member_id)
        seen_ms = self.presence.last_seen_ms(peer)
        return {
            "name": peer.name,
            "pubkey": peer.pubkey,
            "x25519_pubkey": peer.x25519_pubkey,
            "member_id": peer.member_id,
            "role": peer.role,
            "online": online,
            "status": peer.presence_status,
            "summary": peer.summary,
            # Those of a host that is offline are as old as its link.
            "sessions": sessions_of(peer) if online else [],
            "last_seen_at": None if seen_ms is None else iso_ms(seen_ms),
            "name_is_pinned_to_another": self.directory.has_other_pin(peer),
            "verified": peer.is_verified,
        }


def _cursor(item: Item) -> str:
    # The directory's order: names are unique without regard to case.
    name: str = item["name"]
    return name.lower()


ROUTES = (
    Route(
        "GET",
        "/v1/peers",
        "List the mesh's members",
        {200: PeerPage},
        PeerRoutes.list_peers,
        query=(page_limit(MAX_PAGE), name_cursor()),
    ),
    Route("GET", "/v1/profile", "This member's profile", {200: Profile}, PeerRoutes.get_profile),
    Route(
        "POST",
        "/v1/profile",
        "Set fields of this member's profile",
        {200: ProfileUpdated},
        PeerRoutes.set_profile,
        body=ProfileBody,
        errors=(503,),
    ),
)
