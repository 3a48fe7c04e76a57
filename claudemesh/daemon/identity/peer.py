"""A member in the directory of this host, and its form on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.protocol.ids import check_key
from claudemesh.protocol.replies import PeerEntry
from claudemesh.protocol.rotation import Rotation, proven_chain
from claudemesh.protocol.session_cards import SessionCard, parse_cards
from claudemesh.protocol.statements import REVOCATION, Statement

ACTIVE, REVOKED, LEFT = "active", "revoked", "left"
# A complete list lacks the member: it has left, or the broker was restored from a copy older than its join.
UNLISTED = "unlisted"


class Peer(Struct, frozen=True):
    """A member in this host's directory.

    `chain` holds the verified rotations that lead to its present keys, `statements` the statements about it
    that this host has verified, `pins` the names in lower case under which it is pinned. `verified_keys` are
    the ed25519 and x25519 key that the user has compared.
    """

    member_id: str
    name: str
    pubkey: str
    x25519_pubkey: str
    key_id: str
    role: str
    status: str
    presence_status: str | None = None
    summary: str | None = None
    visible: bool = True
    last_seen_at: int | None = None
    ephemeral: bool = False
    sessions: tuple[SessionCard, ...] = ()
    chain: tuple[Rotation, ...] = ()
    statements: tuple[Statement, ...] = ()
    pins: tuple[str, ...] = ()
    verified_keys: tuple[str, str] | None = None

    @property
    def is_verified(self) -> bool:
        """Whether the user has compared the present keys, or keys that lead to them."""
        if self.verified_keys is None:
            return False
        pubkey, x25519_pubkey = self.verified_keys
        return self.sealing_key_of(pubkey) == x25519_pubkey

    @property
    def earlier_keys(self) -> tuple[str, ...]:
        """The ed25519 keys from which the member has rotated, oldest first."""
        return tuple(statement.old_pubkey for statement in self.chain)

    @property
    def sealing_keys(self) -> tuple[str, ...]:
        """The x25519 keys of the member, present and earlier, as far as they are known."""
        earlier = (one.old_x25519_pubkey for one in self.chain if one.old_x25519_pubkey)
        return (self.x25519_pubkey, *earlier)

    def sealing_key_of(self, pubkey: str | None) -> str:
        """Return the x25519 key beside an ed25519 key of this member; empty when it is not known."""
        if pubkey == self.pubkey:
            return self.x25519_pubkey
        return next((one.old_x25519_pubkey for one in self.chain if one.old_pubkey == pubkey), "")

    @property
    def revocation(self) -> Statement | None:
        """The verified statement that has revoked this member. The broker's list does not undo it."""
        return next((one for one in self.statements if one.kind == REVOCATION), None)

    def card(self) -> dict[str, Any]:
        """Return what events say of a member."""
        return {"name": self.name, "member_id": self.member_id, "pubkey": self.pubkey}


# Fields with a form of their own on disk.
_APART: Final = ("chain", "statements", "pins", "verified_keys", "sessions")
# Not kept: computed from the chain, or written by older versions that did not verify them.
_NOT_OF_PEERS: Final = ("earlier_keys", "rotations", "online", *_APART[1:])
_CARRIED: Final = tuple(name for name in Peer.__struct_fields__ if name not in _APART)


def peer_of(entry: PeerEntry) -> Peer:
    """Return the member of an entry, with nothing of it verified."""
    return Peer(**{name: getattr(entry, name) for name in _CARRIED}, sessions=entry.sessions)


def saved(peer: Peer) -> dict[str, Any]:
    """Return a member as peers.json holds it."""
    item: dict[str, Any] = {name: getattr(peer, name) for name in _CARRIED}
    item |= {"earlier_keys": peer.earlier_keys, "pins": peer.pins}
    if peer.chain:
        item["rotations"] = [statement.to_dict() for statement in peer.chain]
    if peer.sessions:
        item["sessions"] = [asdict(one) for one in peer.sessions]
    if peer.verified_keys is not None:
        item["verified_keys"] = list(peer.verified_keys)
    if peer.statements:
        item["statements"] = [statement.to_dict() for statement in peer.statements]
    return item


def loaded(item: Mapping[str, Any], mesh_id: str) -> Peer:
    """Return a member of peers.json. Earlier keys without rotations were never verified and are left out."""
    given = {name: value for name, value in item.items() if name not in _NOT_OF_PEERS}
    seen = item["last_seen_at"] if type(item["last_seen_at"]) is int else None
    peer = Peer(**{**given, "last_seen_at": seen})
    # An older version pinned every member by the one name that it had.
    default = () if peer.ephemeral else (peer.name.lower(),)
    rotations = [Rotation.parse(statement) for statement in item.get("rotations", ())]
    keys = {"pubkey": peer.pubkey, "x25519_pubkey": peer.x25519_pubkey}
    return replace(
        peer,
        pins=tuple(item.get("pins", default)),
        chain=proven_chain(rotations, mesh_id=mesh_id, **keys) if rotations else (),
        statements=tuple(map(Statement.parse, item.get("statements", ()))),
        verified_keys=_verified_keys(item.get("verified_keys")),
        sessions=parse_cards(item, "sessions") if "sessions" in item else (),
    )


def _verified_keys(value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    pubkey, x25519_pubkey = value
    return check_key(pubkey, "verified_keys"), check_key(x25519_pubkey, "verified_keys")
