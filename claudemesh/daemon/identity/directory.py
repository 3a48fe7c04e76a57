"""Directory: members as last seen, and their pinned keys (docs/spec/daemon.md, Directory and pins).

The directory is kept on disk (peersfile.py), so that sends are resolved and retries are recognised without
the broker. Members that have left stay in it, for the same reason.

The first key seen for a member and its name is pinned. It may change only to a key that it leads to by a
chain of signed rotations (protocol/rotation.py). An ed25519 or x25519 key belongs to the member that was
seen with it first. Entries of the broker's list that contradict this are refused (pins.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from claudemesh.daemon.identity.nearby import MORE_THAN_LISTED, candidates, near_names
from claudemesh.daemon.identity.peersfile import PeersFile
from claudemesh.daemon.identity.pins import Inviter, Refusals, full, unlisted
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.keys import verify_key_binding
from claudemesh.protocol.replies import MAX_MEMBERS, PeerEntry
from claudemesh.protocol.rotation import Rotation, proven_chain
from claudemesh.runtime import aside
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("directory"))

# More signatures than these are verified beside the event loop.
_FEW_ROTATIONS = 8

ACTIVE, REVOKED, LEFT = "active", "revoked", "left"
# A complete list lacks the member: it has left, or the broker was restored from a copy older than its join.
UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Peer:
    """A member in this host's directory. `chain` holds the verified rotations that lead to its present
    keys."""

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
    chain: tuple[Rotation, ...] = ()

    @property
    def earlier_keys(self) -> tuple[str, ...]:
        """The ed25519 keys from which the member has rotated, oldest first."""
        return tuple(statement.old_pubkey for statement in self.chain)


# Not kept: computed from the chain, or written by older versions that did not verify them.
_NOT_OF_PEERS = ("earlier_keys", "rotations", "online")
_CARRIED = tuple(field.name for field in fields(Peer) if field.name != "chain")


class Directory:
    """Names, keys and profiles of the mesh's members, in memory and on disk."""

    def __init__(
        self,
        path: Path,
        mesh_id: str,
        inviter: Inviter | None = None,
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`on_refused` gets the reason of each newly refused entry."""
        self._file = PeersFile(path)
        self._mesh_id = mesh_id
        self._version: str | None = None
        # Whether entries of the list could not be read. The next start asks for the complete list then.
        self._has_faults = False
        # Whether members were left out, because there is no room for more.
        self._is_full = False
        self._unsaved: set[str] = set()
        self._saved_version: str | None = None
        # Names of active members in lower case, sorted. None: they must be sorted again.
        self._names: list[str] | None = None
        self._inviter = inviter
        self._by_id: dict[str, Peer] = {}
        self._by_name: dict[str, str] = {}
        self._by_key: dict[str, str] = {}
        self._by_sealing_key: dict[str, str] = {}
        self.refusals = Refusals(on_refused)
        # Number of earlier keys that the broker listed without a chain of rotations. They are not used.
        self.unproven = 0
        self._keeps_revoked: Callable[[PeerEntry], bool] = lambda entry: False

    def load(self) -> None:
        """Read the directory from disk; without files it is empty. Raise `ValueError` for a damaged file."""
        kept = self._file.load()
        self._version = self._saved_version = kept.version
        for item in kept.entries:
            peer = _loaded(item, self._mesh_id)
            if reason := self._key_of_another(peer):
                # An older version let two members have the same key. The complete list shows the second one
                # again.
                log.warning("kept_peer_refused", reason=reason, name=peer.name, member_id=peer.member_id)
                self._version = None
                continue
            self._remember(peer)
        self._unsaved.clear()

    def save(self) -> None:
        """Write the changes since the last save. Raise `OSError`, which names the file."""
        version = self._kept_version
        changed = [_saved(self._by_id[member_id]) for member_id in self._unsaved]
        self._file.write(version, changed, lambda: map(_saved, self._by_id.values()))
        self._unsaved.clear()
        self._saved_version = version

    @property
    def is_saved(self) -> bool:
        """Whether all changes are on disk."""
        return not self._unsaved and self._kept_version == self._saved_version

    @property
    def _kept_version(self) -> str | None:
        # Refused entries are checked again after the next start, so the broker has to list them again then.
        return None if self._has_faults or self.refusals.kept() else self._version

    @property
    def version(self) -> str | None:
        """The version of the broker's list up to which it was applied."""
        return self._version

    def note_version(self, version: str | None) -> None:
        """Note up to which version the broker's list was taken over."""
        self._version = version

    def note_faults(self) -> None:
        """Note that entries could not be read: the whole list is asked for after the next start."""
        self._has_faults = True

    def on_revived(self, judge: Callable[[PeerEntry], bool]) -> None:
        """Let `judge` decide on entries that are active again though revoked. True keeps one revoked here."""
        self._keeps_revoked = judge

    def apply(self, entries: Iterable[PeerEntry]) -> bool:
        """Apply entries of the broker's list; return whether anything changed that has to be saved.

        An entry is refused and logged when its keys are not bound to each other, or when it contradicts a
        pin. The previous entry stays then. After a change, entries that were refused before are checked
        again.
        """
        changed = self._take(entries)
        while changed and (waiting := self.refusals.kept()) and self._take(one.entry for one in waiting):
            pass
        return changed

    def apply_one(self, entry: PeerEntry) -> bool:
        """Apply one entry, without another look at those that were refused before."""
        return self._take((entry,))

    async def prove(self, entry: PeerEntry) -> None:
        """Verify the rotations of an entry on the worker thread. `apply_one` finds them verified then."""
        if len(entry.rotations) > _FEW_ROTATIONS:
            await aside.run(
                aside.LIGHT_VALUES + 1,
                proven_chain,
                entry.rotations,
                mesh_id=self._mesh_id,
                pubkey=entry.pubkey,
                x25519_pubkey=entry.x25519_pubkey,
            )

    def refused(self) -> Sequence[PeerEntry]:
        """Return the entries that are refused now."""
        return [refusal.entry for refusal in self.refusals.kept()]

    def _take(self, entries: Iterable[PeerEntry]) -> bool:
        changed = False
        for entry in entries:
            known = self._by_id.get(entry.member_id)
            if known is None and len(self._by_id) >= MAX_MEMBERS:
                self._is_full = self._has_faults = True
                continue
            peer = self._peer_of(entry, known)
            is_bound = _is_bound(entry, known)
            reason = self._contradiction(peer, known) if is_bound else "key_not_bound"
            if reason is not None:
                self.refusals.add(reason, entry)
                continue
            self.refusals.accepted(peer.name, peer.member_id)
            if known is not None and (known.status, peer.status) == ("revoked", "active"):
                log.warning("revoked_member_listed_as_active", name=peer.name, member_id=peer.member_id)
                if self._keeps_revoked(entry):
                    continue
            if peer != known:
                if known is not None and known.pubkey != peer.pubkey:
                    log.info("member_keys_rotated", name=peer.name, member_id=peer.member_id)
                changed = True
                self._remember(peer)
        return changed

    def _contradiction(self, peer: Peer, known: Peer | None) -> str | None:
        """Return the reason for which an entry contradicts a pin (a code of pins.py), or None."""
        own_keys = (peer.pubkey, *peer.earlier_keys)
        if known is not None and known.pubkey not in own_keys:
            return "key_changed"
        if self._by_name.get(peer.name.lower(), peer.member_id) != peer.member_id:
            return "name_rebound"
        introduced = self._inviter.introduction if self._inviter else None
        if self._inviter and introduced and introduced.member_id not in self._by_id:
            is_named = peer.name.lower() == introduced.name.lower()
            if peer.member_id == introduced.member_id and self._inviter.pubkey not in own_keys:
                return "key_changed"
            if is_named and peer.member_id != introduced.member_id:
                return "name_rebound"
        return self._key_of_another(peer)

    def _key_of_another(self, peer: Peer) -> str | None:
        own_keys = (peer.pubkey, *peer.earlier_keys)
        if any(self._by_key.get(key, peer.member_id) != peer.member_id for key in own_keys):
            return "key_taken"
        if self._by_sealing_key.get(peer.x25519_pubkey, peer.member_id) != peer.member_id:
            return "sealing_key_taken"
        return None

    def show(self, conditions: Conditions) -> None:
        """Set or clear the conditions for refused entries, and for an inviter whose key a complete list
        lacks."""
        conditions.set("directory_refused", self.refusals.message())
        conditions.set("directory_full", full() if self._is_full else None)
        missing = self._inviter is not None and self.by_key(self._inviter.pubkey) is None
        conditions.set(
            "inviter_unlisted", unlisted(self._inviter.pubkey) if missing and self._inviter else None
        )

    def gone(self, member_ids: Iterable[str]) -> bool:
        """Mark members that have left the mesh; return whether that changed any."""
        return self._set_status(member_ids, LEFT)

    def only_listed(self, member_ids: Collection[str]) -> bool:
        """Mark members that a complete list lacks; return whether that changed any."""
        missing = [
            peer.member_id
            for peer in self._by_id.values()
            if peer.status == ACTIVE and peer.member_id not in member_ids
        ]
        return self._set_status(missing, UNLISTED)

    def _set_status(self, member_ids: Iterable[str], status: str) -> bool:
        changed = False
        for member_id in member_ids:
            peer = self._by_id.get(member_id)
            if peer is not None and peer.status != status:
                changed = True
                self._remember(replace(peer, status=status))
        return changed

    def by_id(self, member_id: str) -> Peer | None:
        """Find a member by its id."""
        return self._by_id.get(member_id)

    def by_key(self, pubkey: str) -> Peer | None:
        """Find a member by its present ed25519 key or by an earlier one."""
        member_id = self._by_key.get(pubkey)
        return None if member_id is None else self._by_id[member_id]

    def by_name(self, name: str) -> Peer | None:
        """Find a member by name, without regard to case."""
        member_id = self._by_name.get(name.lower())
        return None if member_id is None else self._by_id[member_id]

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
        """Raise `ProtocolError` when a member takes no new sends: it has left, or its name is refused."""
        if peer.status != ACTIVE:
            raise ProtocolError("destination_not_found", f"{peer.name} has left this mesh.")
        if name is not None and (refusal := self.refusals.of(name)):
            raise refusal.error()

    def near(self, name: str) -> list[str]:
        """Return up to three active members with similar names."""
        return [self._by_id[self._by_name[near]].name for near in near_names(name.lower(), self._active())]

    def peers(self) -> Sequence[Peer]:
        """Return the active members, sorted by name."""
        return self.page(None, len(self._by_id))

    def page(self, after: str | None, limit: int) -> Sequence[Peer]:
        """Return up to `limit` active members, sorted by name, after the name `after` in lower case."""
        names = self._active()
        start = 0 if after is None else bisect_right(names, after)
        return [self._by_id[self._by_name[name]] for name in names[start : start + limit]]

    def _active(self) -> Sequence[str]:
        if self._names is None:
            self._names = sorted(peer.name.lower() for peer in self._by_id.values() if peer.status == ACTIVE)
        return self._names

    def _remember(self, peer: Peer) -> None:
        known = self._by_id.get(peer.member_id)
        if known is None or (known.name, known.status) != (peer.name, peer.status):
            self._names = None
        self._unsaved.add(peer.member_id)
        self._by_id[peer.member_id] = peer
        self._by_name[peer.name.lower()] = peer.member_id
        for key in (peer.pubkey, *peer.earlier_keys):
            self._by_key[key] = peer.member_id
        self._by_sealing_key[peer.x25519_pubkey] = peer.member_id

    def _peer_of(self, entry: PeerEntry, known: Peer | None) -> Peer:
        peer = Peer(**{name: getattr(entry, name) for name in _CARRIED})
        chain = self._proven(peer, known, entry.rotations)
        unproven = set(entry.earlier_keys) - {statement.old_pubkey for statement in chain}
        if unproven:
            if not self.unproven:
                log.warning("earlier_keys_without_proof", name=peer.name, keys=len(unproven))
            self.unproven += len(unproven)
        return replace(peer, chain=chain)

    def _proven(self, peer: Peer, known: Peer | None, given: tuple[Rotation, ...]) -> tuple[Rotation, ...]:
        """Return the longer chain to the member's keys: the one that the broker gives, or the known one."""
        before = known.chain if known is not None else ()
        is_same = known is not None and (known.pubkey, known.x25519_pubkey) == (
            peer.pubkey,
            peer.x25519_pubkey,
        )
        if is_same and given in ((), before):
            return before
        keys = {"pubkey": peer.pubkey, "x25519_pubkey": peer.x25519_pubkey}
        merged = tuple(dict.fromkeys((*before, *given)))
        chains = [proven_chain(each, mesh_id=self._mesh_id, **keys) for each in (given, merged)]
        return max(*chains, before if is_same else (), key=len)


def _is_bound(entry: PeerEntry, known: Peer | None) -> bool:
    if known and (known.pubkey, known.x25519_pubkey) == (entry.pubkey, entry.x25519_pubkey):
        return True  # unchanged since it was applied
    return verify_key_binding(entry.pubkey, entry.x25519_pubkey, entry.x25519_signature)


def _saved(peer: Peer) -> dict[str, Any]:
    item = {name: getattr(peer, name) for name in _CARRIED}
    rotations = [statement.to_dict() for statement in peer.chain]
    # Older versions read `earlier_keys` and ignore `rotations`.
    return {**item, "earlier_keys": peer.earlier_keys, **({"rotations": rotations} if rotations else {})}


def _loaded(item: Mapping[str, Any], mesh_id: str) -> Peer:
    """Return a peer of peers.json. Earlier keys without rotations were never verified and are left out."""
    given = {name: value for name, value in item.items() if name not in _NOT_OF_PEERS}
    seen = item["last_seen_at"] if type(item["last_seen_at"]) is int else None
    peer = Peer(**{**given, "last_seen_at": seen})
    statements = [Rotation.parse(statement) for statement in item.get("rotations", ())]
    if not statements:
        return peer
    keys = {"pubkey": peer.pubkey, "x25519_pubkey": peer.x25519_pubkey}
    return replace(peer, chain=proven_chain(statements, mesh_id=mesh_id, **keys))
