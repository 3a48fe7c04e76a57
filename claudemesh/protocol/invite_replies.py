"""Replies of a broker to the calls about invites (docs/spec/protocol.md, Calls)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from claudemesh.protocol import fields
from claudemesh.protocol.fields import Json
from claudemesh.protocol.ids import HEX_32, ULID
from claudemesh.protocol.replies import Listing, entries, reader, record
from claudemesh.protocol.wire import ROLES, Role


@dataclass(frozen=True, slots=True)
class InviteEntry:
    """An invite in the list of the broker. Times are Unix milliseconds.

    Of an invite that was revoked before the broker has seen it, only the id is known.
    """

    invite_id: str
    role: Role | None
    created_by: str | None
    expires_at: int | None
    uses: int
    max_uses: int | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class InviteList(Listing):
    """The reply to `invite_list`; `next` is the id after which the following page begins."""

    items: tuple[InviteEntry, ...]
    next: str | None = None


@reader("invite_list")
def invite_list(value: Any) -> InviteList:
    """Read a page of the list of invites."""
    found = record(value, "ok")
    items, faults = entries(found, "items", _entry, "invite_list")
    following = None if found.get("next") is None else fields.matching(found, "next", ULID)
    return InviteList(items, following, faults=faults)


def _entry(item: Json) -> InviteEntry:
    return InviteEntry(
        invite_id=fields.matching(item, "invite_id", ULID),
        role=None if item.get("role") is None else fields.one_of(item, "role", ROLES),
        created_by=None if item.get("created_by") is None else fields.matching(item, "created_by", HEX_32),
        expires_at=fields.optional_timestamp(item, "expires_at"),
        uses=fields.integer(item, "uses"),
        max_uses=None if item.get("max_uses") is None else fields.integer(item, "max_uses"),
        revoked_at=fields.optional_timestamp(item, "revoked_at"),
    )
