"""Changes of members as local programs are told of them (docs/spec/daemon.md, Events)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from msgspec import Struct

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.peer import REVOKED, Peer
from claudemesh.protocol.statements import Statement

RENAMED: Final = "member_renamed"
UPDATED: Final = "member_updated"
ROTATED: Final = "member_keypair_rotated"
REPLACED: Final = "member_replaced"
KEYPAIR_REVOKED: Final = "keypair_revoked"
_PROFILE: Final = ("role", "presence_status", "summary", "visible", "sessions")

# Fields of an event about a member whose text that member, or another one, has chosen.
_CHOSEN: Final = ("name", "old_name", "sessions", "signer_name", "status", "summary")


def member_event(event: str, data: Mapping[str, Any]) -> BusEvent:
    """Return an event about a member. `untrusted` names the fields that a member has written."""
    return BusEvent(event, {**data, "untrusted": [name for name in _CHOSEN if name in data]})


class MemberChange(Struct, frozen=True):
    """One change of a member: the name of its event, and the data."""

    event: str
    data: Mapping[str, Any]


def changes_between(before: Peer, after: Peer) -> Sequence[MemberChange]:
    """Return what has changed of a member that is known already."""
    changes, card = [], after.card()
    if before.name != after.name:
        changes.append(MemberChange(RENAMED, {**card, "old_name": before.name}))
    if before.pubkey != after.pubkey:
        changes.append(MemberChange(ROTATED, {**card, "old_pubkey": before.pubkey}))
    if before.status != REVOKED and after.status == REVOKED:
        statement = after.revocation
        by = None if statement is None else statement.signer
        changes.append(MemberChange(KEYPAIR_REVOKED, {**card, "revoked_by": by}))
    elif any(getattr(before, name) != getattr(after, name) for name in _PROFILE):
        changes.append(MemberChange(UPDATED, profile_of(after)))
    return changes


def profile_of(peer: Peer) -> Mapping[str, Any]:
    """Return a member with its profile."""
    return {
        **peer.card(),
        "role": peer.role,
        "status": peer.presence_status,
        "summary": peer.summary,
        "visible": peer.visible,
        "sessions": sessions_of(peer),
    }


def sessions_of(peer: Peer) -> Sequence[Mapping[str, str]]:
    """Return the sessions that a member tells of."""
    return [asdict(one) for one in peer.sessions]


def replaced(before: Peer, after: Peer, statement: Statement | None, signer: str | None) -> MemberChange:
    """Return the change of a name that goes to another member, by a statement or by the user."""
    told = {"old_member_id": before.member_id, "old_pubkey": before.pubkey}
    by = {"signed_by": None if statement is None else statement.signer, "signer_name": signer}
    return MemberChange(REPLACED, {**after.card(), **told, **by})
