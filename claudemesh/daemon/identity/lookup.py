"""Questions to the directory: members by id, key and name, and whether sends to them are open."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from claudemesh.daemon.identity.members import Members
from claudemesh.daemon.identity.nearby import MORE_THAN_LISTED, candidates
from claudemesh.daemon.identity.peer import ACTIVE, LEFT, REVOKED, UNLISTED, Peer
from claudemesh.daemon.identity.pins import Refusals, renamed, taken_over
from claudemesh.protocol.errors import ProtocolError


class Lookup:
    """The part of the directory that reads."""

    def __init__(self, members: Members, refusals: Refusals) -> None:
        self._members = members
        self.refusals = refusals

    def by_id(self, member_id: str) -> Peer | None:
        """Find a member by its id."""
        return self._members.by_id.get(member_id)

    def by_key(self, pubkey: str) -> Peer | None:
        """Find a member by its present ed25519 key or by an earlier one."""
        return self._members.by_key(pubkey)

    def by_name(self, name: str) -> Peer | None:
        """Find a member by name, without regard to case."""
        return self._members.by_name(name)

    def missing_in(self, member_ids: Collection[str]) -> list[str]:
        """Return the ids of active members that a complete list lacks."""
        peers = self._members.by_id.values()
        return [one.member_id for one in peers if one.status == ACTIVE and one.member_id not in member_ids]

    def resolve(self, *, name: str | None, key: str | None) -> Peer:
        """Find the member that a send names, by name or by an ed25519 key.

        Raise `ProtocolError`: destination_not_found with similar names, or the refusal of an entry of that
        name.
        """
        peer = self.by_name(name) if name is not None else self.by_key(key or "")
        if peer is not None:
            return peer
        if name is not None and (refusal := self.refusals.of(name)):
            raise refusal.error()
        near = self.near(name) if name else []
        names = [peer.name for peer in self.page(None, MORE_THAN_LISTED)]
        text = f"No member {name or key!r} is known in this mesh. {candidates(near, names)}"
        raise ProtocolError("destination_not_found", text, near=near, next="claudemesh peers")

    def check_open(self, peer: Peer, name: str | None) -> None:
        """Raise `ProtocolError` when a member takes no new sends under the name, or at all.

        It has left or was revoked, has another name now, or the name is refused or another member's.
        """
        if name is not None:
            self.check_name(peer, name)
        if peer.status != ACTIVE:
            what = "was revoked" if peer.status == REVOKED else "has left this mesh"
            raise ProtocolError("destination_not_found", f"{peer.name} {what}.")
        if name is not None and (refusal := self.refusals.of(name)):
            raise refusal.error()
        if name is not None and peer.name.lower() != name.lower():
            raise renamed(name, peer.name)

    def check_name(self, peer: Peer, name: str) -> None:
        """Raise `ProtocolError` name_rebound when a name belongs to another member than the pinned one."""
        if bearer := self._members.other_bearer(name):
            raise taken_over(name, peer, bearer)

    def has_other_pin(self, peer: Peer) -> bool:
        """Whether sends to the name of a member are refused, because the name is pinned to another one."""
        return self._members.names.other_bearer(peer.name.lower()) == peer.member_id

    def everyone(self) -> Sequence[Peer]:
        """Return all members that have not left, sorted by name and id."""
        known = (peer for peer in self._members.by_id.values() if peer.status not in (LEFT, UNLISTED))
        return sorted(known, key=lambda peer: (peer.name.lower(), peer.member_id))

    def near(self, name: str) -> list[str]:
        """Return up to three active members with similar names."""
        return self._members.near(name)

    def peers(self) -> Sequence[Peer]:
        """Return the active members, sorted by name."""
        return self.page(None, len(self._members.by_id))

    def page(self, after: str | None, limit: int) -> Sequence[Peer]:
        """Return up to `limit` active members, sorted by name, after the name `after` in lower case."""
        return self._members.page(after, limit)
