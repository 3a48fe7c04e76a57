"""Refused entries of the broker's member list, and the inviter that this host's invite names.

An entry is refused when it contradicts a pin of this host. The previous entry stays. The refusal is logged
once, counted, and shown as a condition until the broker lists the member as pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from claudemesh.daemon.identity.peer import ACTIVE, REVOKED, Peer
from claudemesh.home.membership import Membership
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.invites import Introduction, parse_link
from claudemesh.protocol.replies import MAX_MEMBERS, PeerEntry
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("directory"))

# Largest number of refused entries that are kept and named; further ones are only counted.
MAX_KEPT: Final = 64
_NAMED: Final = 5

# Code of each refusal, and the words for it in messages.
REASONS: Final[Mapping[str, str]] = {
    "key_changed": "another key than the pinned one, not signed by it",
    "name_rebound": "another member under a name that is pinned",
    "key_taken": "a key that belongs to another member",
    "sealing_key_taken": "the x25519 key of another member",
    "key_not_bound": "an x25519 key that the member's own key did not sign",
}


class Inviter(Struct, frozen=True):
    """The member that signed this host's invite. `introduction` is None in invites of older versions."""

    pubkey: str
    introduction: Introduction | None = None


class RefusedEntry(Struct, frozen=True):
    """A refused entry of the broker's list. It is kept, because the pin that it contradicts may change."""

    reason: str
    entry: PeerEntry

    @property
    def name(self) -> str:
        """The name in the entry."""
        return self.entry.name

    def error(self) -> ProtocolError:
        """Return the error for a send to this name."""
        return ProtocolError(
            self.reason,
            f"The broker's entry for {self.name} contradicts what this host has pinned: it shows "
            f"{REASONS[self.reason]}. Sends to this name are refused until that is corrected. Ask an owner "
            "of the mesh, not through this broker, which key is right. Meanwhile, name the member by its "
            "key.",
            name=self.name,
            shown_pubkey=self.entry.pubkey,
        )


class Refusals:
    """The entries that are refused now, by name, and the number of refusals by reason since the start."""

    def __init__(self, on_new: Callable[[str], None] = lambda reason: None) -> None:
        """`on_new` gets the reason of each new refusal."""
        self._on_new = on_new
        self._kept: dict[str, RefusedEntry] = {}
        self.total = 0

    def add(self, reason: str, entry: PeerEntry) -> None:
        """Record a refused entry. It is logged unless it was refused for the same reason before."""
        self.total += 1
        key = entry.name.lower()
        known = self._kept.get(key)
        if known is None or known.reason != reason:
            self._on_new(reason)
            if known is None and len(self._kept) >= MAX_KEPT:
                return
            log.warning("peer_refused", reason=reason, name=entry.name, member_id=entry.member_id)
        self._kept[key] = RefusedEntry(reason, entry)

    def accepted(self, name: str, member_id: str) -> None:
        """Remove the refusals of an accepted entry's name and member."""
        if not self._kept:
            return
        past = [
            key
            for key, found in self._kept.items()
            if key == name.lower() or found.entry.member_id == member_id
        ]
        for key in past:
            del self._kept[key]
            log.info("peer_no_longer_refused", name=name)

    def of(self, name: str) -> RefusedEntry | None:
        """Return the refusal of an entry with this name, or None."""
        return self._kept.get(name.lower())

    def kept(self) -> list[RefusedEntry]:
        """Return the entries that are refused now."""
        return list(self._kept.values())

    def message(self) -> str | None:
        """Return the message for health, None when nothing is refused."""
        kept = self.kept()
        if not kept:
            return None
        named = "; ".join(f"{found.name}: {REASONS[found.reason]}" for found in kept[:_NAMED])
        more = f"; and {len(kept) - _NAMED} more" if len(kept) > _NAMED else ""
        return (
            f"The broker's member list contradicts what this host has pinned ({named}{more}). These entries "
            "are not used, and sends to these names are refused. Ask an owner of the mesh, not through this "
            "broker, which key is right. If the broker is right, stop the daemon and move peers.json away."
        )


def unlisted(inviter_pubkey: str) -> str:
    """Return the message for health when no member has the key that signed this host's invite."""
    return (
        f"The broker lists no member with the key that signed this host's invite ({inviter_pubkey}). Either "
        "that member has left, or the list is forged. Ask an owner of the mesh, not through this broker, "
        "which of the two it is."
    )


def taken_over(name: str, pinned: Peer, bearer: Peer) -> ProtocolError:
    """Return the error for a send to a name that another member has taken since it was pinned."""
    return ProtocolError(
        "name_rebound",
        f"The name {name} belongs to another member than the one that this host knows by it. Known is the "
        f"key {pinned.pubkey} ({_now(pinned, name)}); the name has the key {bearer.pubkey} now. Ask that "
        f"member, not through this mesh, whether it is the right one, then accept it with "
        f"`claudemesh peers accept {name}`. Meanwhile, name either member by its key.",
        name=name,
        pinned_pubkey=pinned.pubkey,
        shown_pubkey=bearer.pubkey,
        next=f"claudemesh peers accept {name}",
    )


def renamed(name: str, now: str) -> ProtocolError:
    """Return the error for a send to the name that a member had before."""
    return ProtocolError(
        "destination_not_found",
        f"{name} has another name now: {now}. Send to that name.",
        near=[now],
        next="claudemesh peers",
    )


def _now(pinned: Peer, name: str) -> str:
    if pinned.status == ACTIVE:
        return f"now named {pinned.name}"
    return "which was revoked" if pinned.status == REVOKED else "which has left the mesh"


def full() -> str:
    """Return what health shows when the broker lists more members than this host keeps."""
    return (
        f"The broker's member list has more members than this host keeps ({MAX_MEMBERS}). Nothing is sent to "
        "the others, and no message of theirs is taken. If the mesh is that large, stop the daemon and move "
        "peers.json away: members that have left are forgotten then."
    )


def inviter_of(membership: Membership) -> Inviter | None:
    """Return the inviter that this host trusts by its invite; None for the first member of a mesh."""
    pubkey = membership.inviter_pubkey
    if pubkey is None or membership.invite is None:
        return None if pubkey is None else Inviter(pubkey)
    try:
        invite = parse_link(membership.invite)
    except ProtocolError:
        return Inviter(pubkey)
    genuine = invite.inviter_pubkey == pubkey and invite.verify()
    return Inviter(pubkey, invite.introduction if genuine else None)
