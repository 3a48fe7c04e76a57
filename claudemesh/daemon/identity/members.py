"""Index of the members of a directory: by id, by key, by name, and in the order of their names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from claudemesh.daemon.identity.names import Names
from claudemesh.daemon.identity.nearby import near_names
from claudemesh.daemon.identity.peer import ACTIVE, LEFT, UNLISTED, Peer

# Ephemeral members that have left and are kept. CI jobs come and go without end.
MAX_DEPARTED: Final = 1000


class Members:
    """The members as last seen. Each is kept once, with every key and pin that it has.

    Of the ephemeral members that have left, the last `MAX_DEPARTED` are kept. The others are asked for again
    when a message of theirs arrives.
    """

    def __init__(self) -> None:
        # Names of active members in lower case with their ids, sorted. None: they must be sorted again.
        self._sorted: list[tuple[str, str]] | None = None
        self._by_key: dict[str, str] = {}
        self._by_sealing_key: dict[str, str] = {}
        self.by_id: dict[str, Peer] = {}
        self.names = Names()
        self._departed: dict[str, None] = {}

    def remember(self, peer: Peer) -> None:
        """Put a member in the place of what was known of it."""
        known = self.by_id.get(peer.member_id)
        if known is None or (known.name, known.status) != (peer.name, peer.status):
            self._sorted = None
        if known is not None:
            self.names.forget(known.member_id, known.name.lower(), known.pins)
        self.names.note(peer.member_id, peer.name.lower(), peer.pins, is_active=peer.status == ACTIVE)
        self.by_id[peer.member_id] = peer
        for key in (peer.pubkey, *peer.earlier_keys):
            self._by_key[key] = peer.member_id
        self._by_sealing_key.update(dict.fromkeys(peer.sealing_keys, peer.member_id))
        self._departed.pop(peer.member_id, None)
        if peer.ephemeral and peer.status in (LEFT, UNLISTED):
            self._departed[peer.member_id] = None
            if len(self._departed) > MAX_DEPARTED:
                self._forget(next(iter(self._departed)))

    def _forget(self, member_id: str) -> None:
        del self._departed[member_id]
        peer = self.by_id.pop(member_id)
        self.names.drop(member_id, peer.name.lower(), peer.pins)
        for key in (peer.pubkey, *peer.earlier_keys):
            self._by_key.pop(key, None)
        for key in peer.sealing_keys:
            self._by_sealing_key.pop(key, None)

    def by_key(self, pubkey: str) -> Peer | None:
        """Find a member by its present ed25519 key or by an earlier one."""
        member_id = self._by_key.get(pubkey)
        return None if member_id is None else self.by_id[member_id]

    def by_name(self, name: str) -> Peer | None:
        """Find the member that a name means, without regard to case."""
        member_id = self.names.find(name.lower())
        return None if member_id is None else self.by_id[member_id]

    def other_bearer(self, name: str) -> Peer | None:
        """Find the active member that has the name of another, pinned one."""
        member_id = self.names.other_bearer(name.lower())
        return None if member_id is None else self.by_id[member_id]

    def key_of_another(self, peer: Peer) -> str | None:
        """Return the reason for which a member may not have its keys (a code of pins.py), or None."""
        own_keys = (peer.pubkey, *peer.earlier_keys)
        if any(self._by_key.get(key, peer.member_id) != peer.member_id for key in own_keys):
            return "key_taken"
        if any(self._by_sealing_key.get(key, peer.member_id) != peer.member_id for key in peer.sealing_keys):
            return "sealing_key_taken"
        return None

    def near(self, name: str) -> list[str]:
        """Return up to three active members with similar names."""
        ids = dict(self._active())
        return [self.by_id[ids[near]].name for near in near_names(name.lower(), list(ids))]

    def page(self, after: str | None, limit: int) -> Sequence[Peer]:
        """Return up to `limit` active members, sorted by name, after the name `after` in lower case."""
        active = self._active()
        start = 0 if after is None else bisect_right(active, after, key=lambda one: one[0])
        return [self.by_id[member_id] for _, member_id in active[start : start + limit]]

    def _active(self) -> Sequence[tuple[str, str]]:
        if self._sorted is None:
            active = (peer for peer in self.by_id.values() if peer.status == ACTIVE)
            self._sorted = sorted((peer.name.lower(), peer.member_id) for peer in active)
        return self._sorted
