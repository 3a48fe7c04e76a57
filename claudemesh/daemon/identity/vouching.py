"""Confirming members that a restore of the broker has lost or revived, from the keys pinned on this host.

The broker asks the daemons of owners and admins (broker/rejoin.py). This host confirms a member only when id,
name and both keys are those that it has pinned, with the role and the status under which it knows the member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.daemon.identity.directory import Directory, Peer

EVENT = "member_unconfirmed"
ROLES = ("owner", "admin")
_CARRIED = ("member_id", "pubkey", "x25519_pubkey", "x25519_signature", "key_id", "invite_id")


def vouch_for(card: Mapping[str, Any], directory: Directory) -> Mapping[str, Any] | None:
    """Return the parameters of `member_vouch` for a member, None when this host does not know exactly it."""
    peer = directory.by_id(str(card.get("member_id")))
    if peer is None or not _is_the_same(card, peer):
        return None
    carried = {name: card.get(name) for name in _CARRIED}
    return {**carried, "name": peer.name, "role": peer.role, "status": peer.status}


def _is_the_same(card: Mapping[str, Any], peer: Peer) -> bool:
    return (
        peer.status in ("active", "revoked")
        and str(card.get("name")).lower() == peer.name.lower()
        and card.get("pubkey") == peer.pubkey
        and card.get("x25519_pubkey") == peer.x25519_pubkey
    )
