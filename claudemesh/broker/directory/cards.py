"""Cards: a member as others see it, and pages of cards that fit into one frame."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence, Set
from typing import Any

import orjson
from msgspec import Struct

from claudemesh.broker.settings import Limits
from claudemesh.broker.store.facets import DirectoryStore
from claudemesh.broker.store.types import Member, Page, Version


def card(member: Member, *, is_own: bool, is_online: bool = False) -> dict[str, object]:
    """Return a member's entry in the list. An invisible one shows its keys, not its profile or presence."""
    shown = member.visible or is_own
    entry: dict[str, object] = {
        "name": member.name,
        "pubkey": member.ed25519_pubkey,
        "x25519_pubkey": member.x25519_pubkey,
        "x25519_signature": b64encode(member.x25519_signature).decode(),
        "key_id": member.key_id,
        "member_id": member.id,
        "role": member.role,
        "status": member.status,
        "online": is_online and shown,
        "presence_status": member.presence_status if shown else None,
        "summary": member.summary if shown else None,
        "visible": member.visible,
        "last_seen_at": member.last_seen_at if shown else None,
        "earlier_keys": list(member.earlier_pubkeys),
        "rotations": [orjson.Fragment(statement) for statement in member.rotations],
        "ephemeral": member.ephemeral,
    }
    if shown and member.sessions is not None:
        entry["sessions"] = orjson.Fragment(member.sessions)
    if member.statements:
        entry["statements"] = [orjson.Fragment(body) for body in member.statements]
    return entry


class Cards(Struct, frozen=True):
    """A page that fits into a frame: entries as JSON, and the ids of members that have left."""

    page: Page
    items: tuple[orjson.Fragment, ...]
    gone: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """Return what a reply and an event have in common."""
        version = self.page.version
        return {
            "items": list(self.items),
            "gone": list(self.gone),
            "version": None if version is None else str(version),
        }


async def read_cards(
    store: DirectoryStore,
    mesh_id: str,
    since: Version | None,
    limits: Limits,
    *,
    after: int = 0,
    limit: int | None = None,
    own_id: str = "",
    online: Set[str] = frozenset(),
    room: int | None = None,
) -> Cards:
    """Read one page of at most `list_items` members and `list_bytes` bytes, of one member at least.

    `room` is a smaller bound of the bytes.
    """
    room = limits.list_bytes if room is None else min(room, limits.list_bytes)
    count = min(limit or limits.list_items, limits.list_items)
    while True:
        page = await store.page(mesh_id, since, after=after, limit=count)
        encoded = [
            orjson.dumps(card(one, is_own=one.id == own_id, is_online=one.id in online))
            for one in page.members
            if one.status != "left"
        ]
        fitting = _fitting(page.members, encoded, room)
        if fitting >= len(page.members):
            gone = tuple(one.id for one in page.members if one.status == "left")
            return Cards(page, tuple(map(orjson.Fragment, encoded)), gone)
        # The end of a page is a version that the store knows: it is read again, with as many as fit.
        count = max(1, fitting)
        if len(page.members) == 1:
            return Cards(page, tuple(map(orjson.Fragment, encoded)), ())


_GONE_BYTES = 40


def _fitting(members: Sequence[Member], encoded: Sequence[bytes], room: int) -> int:
    """Return the number of members, from the first, that fit into this many bytes."""
    sizes = iter(encoded)
    for number, member in enumerate(members):
        room -= _GONE_BYTES if member.status == "left" else len(next(sizes)) + 1
        if room < 0:
            return number
    return len(members)
