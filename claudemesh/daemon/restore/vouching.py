"""Vouching: confirms members that a restore of the broker has lost or revived, by the keys pinned here.

The broker asks the daemons of owners and admins (broker/http/rejoin.py). This host confirms a member only
when id, name and both keys are those that it has pinned, with the role and the status under which it knows
the member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.daemon.identity.directory import ACTIVE, REVOKED, UNLISTED, Directory, Peer
from claudemesh.protocol.events import UnconfirmedMember
from claudemesh.protocol.replies import PeerEntry

ROLES = ("owner", "admin")
# A member that a restored broker does not list keeps the status under which it was known.
_STATUSES = {ACTIVE: ACTIVE, REVOKED: REVOKED, UNLISTED: ACTIVE}


def vouch_for(member: UnconfirmedMember, directory: Directory) -> Mapping[str, Any] | None:
    """Return the parameters of `member_vouch`, or None when the member differs from the one known here."""
    peer = directory.by_id(member.member_id)
    if peer is None or not _is_the_same(member, peer):
        return None
    status = _STATUSES[peer.status]
    return {**member.to_params(), "name": peer.name, "role": peer.role, "status": status}


def as_unconfirmed(entry: PeerEntry) -> UnconfirmedMember:
    """Return a listed member as one that has to be confirmed or revoked again."""
    return UnconfirmedMember(
        entry.member_id,
        entry.name,
        entry.pubkey,
        entry.x25519_pubkey,
        entry.x25519_signature,
        entry.key_id,
        None,
    )


def _is_the_same(member: UnconfirmedMember, peer: Peer) -> bool:
    return (
        peer.status in _STATUSES
        and member.name.lower() == peer.name.lower()
        and member.pubkey == peer.pubkey
        and member.x25519_pubkey == peer.x25519_pubkey
    )
