"""The mesh's members as last seen, and the keys pinned to their names (protocol.md, Envelope).

Kept in peers.json, so that sends resolve and retries are recognised while the broker is away.
Members that left stay, for the same reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import orjson

from claudemesh.protocol.keys import verify_key_binding
from claudemesh.protocol.replies import PeerEntry
from claudemesh.runtime.files import read_private, write_atomic
from claudemesh.runtime.logs import get_logger

log = get_logger("directory")

_NEAR = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """A member as this host knows it."""

    member_id: str
    name: str
    pubkey: str
    x25519_pubkey: str
    key_id: str
    role: str
    status: str
    online: bool = False
    presence_status: str | None = None
    summary: str | None = None
    visible: bool = True
    last_seen_at: int | None = None
    earlier_keys: tuple[str, ...] = ()


_CARRIED = tuple(field.name for field in fields(Peer))


class Directory:
    """Names, keys and presence of the mesh's members, in memory and in peers.json."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_id: dict[str, Peer] = {}
        self._by_name: dict[str, str] = {}
        self._by_key: dict[str, str] = {}
        self.refused = 0
        # Told of an entry that is active again though it was revoked; True keeps it revoked here.
        self.on_revived: Callable[[PeerEntry], bool] = lambda entry: False

    def load(self) -> None:
        """Read peers.json; none yet is an empty directory. `ValueError` when it is damaged."""
        try:
            data = orjson.loads(read_private(self._path, limit=256 << 20))
        except FileNotFoundError:
            return
        for item in data["peers"]:
            seen = item["last_seen_at"] if type(item["last_seen_at"]) is int else None
            self._remember(
                Peer(**{**item, "last_seen_at": seen, "earlier_keys": tuple(item["earlier_keys"])})
            )

    def save(self) -> None:
        """Write peers.json whole."""
        peers = [asdict(peer) for peer in self._by_id.values()]
        write_atomic(self._path, orjson.dumps({"schema_version": 1, "peers": peers}))

    def apply(self, entries: Iterable[PeerEntry]) -> bool:
        """Take over the broker's list; return whether anything worth saving changed.

        An entry whose keys are not bound to each other, or that shows another key for a pinned name,
        is refused and logged; what was known before stays.
        """
        changed = False
        for entry in entries:
            known = self._by_id.get(entry.member_id)
            if not _is_bound(entry):
                self._refuse("key_not_bound", entry.name)
                continue
            pinned = self._by_name.get(entry.name.lower())
            if (known is not None and known.pubkey != entry.pubkey) or pinned not in (None, entry.member_id):
                self._refuse("key_changed", entry.name)
                continue
            if known is not None and (known.status, entry.status) == ("revoked", "active"):
                log.warning("revoked_member_listed_as_active", name=entry.name, member_id=entry.member_id)
                if self.on_revived(entry):
                    continue
            peer = _peer_of(entry)
            if peer != known:
                changed = True
                self._remember(peer)
        return changed

    def set_online(self, member_id: str, online: bool) -> None:
        """Note that a member came or went."""
        peer = self._by_id.get(member_id)
        if peer is not None:
            self._by_id[member_id] = replace(peer, online=online)

    def all_offline(self) -> None:
        """Without the broker nobody is known to be online."""
        for member_id in self._by_id:
            self.set_online(member_id, False)

    def by_id(self, member_id: str) -> Peer | None:
        """Find a member by its id."""
        return self._by_id.get(member_id)

    def by_key(self, pubkey: str) -> Peer | None:
        """Find a member by a key of its own, present or past."""
        member_id = self._by_key.get(pubkey)
        return None if member_id is None else self._by_id[member_id]

    def by_name(self, name: str) -> Peer | None:
        """Find a member by name, without regard to case."""
        member_id = self._by_name.get(name.lower())
        return None if member_id is None else self._by_id[member_id]

    def near(self, name: str) -> list[str]:
        """Return up to three active members whose names look like this one."""
        names = {peer.name.lower(): peer.name for peer in self._by_id.values() if peer.status == "active"}
        return [names[match] for match in difflib.get_close_matches(name.lower(), names, n=_NEAR)]

    def peers(self) -> list[Peer]:
        """Return the active members, by name."""
        active = [peer for peer in self._by_id.values() if peer.status == "active"]
        return sorted(active, key=lambda peer: peer.name.lower())

    def _remember(self, peer: Peer) -> None:
        self._by_id[peer.member_id] = peer
        self._by_name[peer.name.lower()] = peer.member_id
        self._by_key[peer.pubkey] = peer.member_id
        for key in peer.earlier_keys:
            self._by_key.setdefault(key, peer.member_id)

    def _refuse(self, reason: str, name: str) -> None:
        self.refused += 1
        log.warning("peer_refused", reason=reason, name=name)


def _is_bound(entry: PeerEntry) -> bool:
    return verify_key_binding(entry.pubkey, entry.x25519_pubkey, entry.x25519_signature)


def _peer_of(entry: PeerEntry) -> Peer:
    return Peer(**{name: getattr(entry, name) for name in _CARRIED})
