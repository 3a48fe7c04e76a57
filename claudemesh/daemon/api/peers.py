"""The mesh's members, and what this one says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Reply
from claudemesh.daemon.api.paging import Item, page
from claudemesh.daemon.api.query import MAX_PAGE, name_cursor, page_limit
from claudemesh.daemon.api.routes import Operation, Request
from claudemesh.daemon.api.schemas import PeerPage, ProfileBody, ProfileUpdated
from claudemesh.daemon.identity.directory import Peer
from claudemesh.protocol import replies
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import has_control
from claudemesh.runtime.clock import iso_ms


async def list_peers(core: CoreLike, request: Request) -> Reply:
    """The active members as last seen, by name; offline this is what the directory remembers."""
    await core.presence.known()

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Item], str | None]:
        found = core.directory.page(after, limit + 1)
        items = [_item(core, peer) for peer in found[:limit]]
        return items, _cursor(items[-1]) if len(found) > limit else None

    return await page(request, fetch, _cursor, request.query["limit"])


async def set_profile(core: CoreLike, request: Request) -> Reply:
    """Set what others see of this member. Needs the broker."""
    body: ProfileBody = request.body
    given: dict[str, Any] = {"summary": body.summary, "status": body.status, "visible": body.visible}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, str) and has_control(value):
            raise InvalidField("invalid_field", name, f"{name} may hold no control character.")
    await core.link.call("profile", given, replies.nothing)
    return Reply(200, {"updated": sorted(given)})


def _item(core: CoreLike, peer: Peer) -> dict[str, Any]:
    online = core.presence.is_online(peer.member_id)
    seen_ms = core.clock.wall_ms() if online else core.presence.last_seen_ms(peer)
    return {
        "name": peer.name,
        "pubkey": peer.pubkey,
        "x25519_pubkey": peer.x25519_pubkey,
        "member_id": peer.member_id,
        "role": peer.role,
        "online": online,
        "status": peer.presence_status,
        "summary": peer.summary,
        "last_seen_at": None if seen_ms is None else iso_ms(seen_ms),
    }


def _cursor(item: Item) -> str:
    # The directory's order: names differ without regard to case.
    name: str = item["name"]
    return name.lower()


OPERATIONS = (
    Operation(
        "GET",
        "/v1/peers",
        "List the mesh's members",
        {200: PeerPage},
        list_peers,
        query=(page_limit(MAX_PAGE), name_cursor()),
    ),
    Operation(
        "POST",
        "/v1/profile",
        "Set what others see of this member",
        {200: ProfileUpdated},
        set_profile,
        body=ProfileBody,
        errors=(503,),
    ),
)
