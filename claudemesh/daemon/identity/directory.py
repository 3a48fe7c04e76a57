"""Directory: members as last seen, and their pinned keys (docs/spec/daemon.md, Directory and pins).

The directory is kept on disk (peersfile.py), so that sends are resolved and retries are recognised without
the broker. Members that have left stay in it, for the same reason.

The first key seen for a member is pinned. It may change only to a key that it leads to by a chain of signed
rotations (protocol/rotation.py). An ed25519 or x25519 key belongs to the member that was seen with it first.
Entries of the broker's list that contradict this are refused (pins.py). Names are pinned too (names.py):
another member under a pinned name is reached by its key alone, until a signed statement or the user moves the
pin. A member that a statement has revoked stays revoked here (judging.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from claudemesh.daemon.identity.changes import MemberChange, changes_between, replaced
from claudemesh.daemon.identity.judging import (
    is_key_bound,
    judge,
    longest_chain,
    missing_statements,
    replacement_of,
    with_statements,
)
from claudemesh.daemon.identity.lookup import Lookup
from claudemesh.daemon.identity.members import Members
from claudemesh.daemon.identity.names import pins_after
from claudemesh.daemon.identity.peer import ACTIVE, LEFT, REVOKED, UNLISTED, Peer, loaded, peer_of
from claudemesh.daemon.identity.peersfile import PeersFile
from claudemesh.daemon.identity.pins import Inviter, Refusals, full, unlisted
from claudemesh.daemon.identity.saving import Saver
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import MAX_MEMBERS, PeerEntry
from claudemesh.protocol.rotation import proven_chain
from claudemesh.protocol.session_cards import SessionCard
from claudemesh.protocol.statements import Statement
from claudemesh.runtime import aside
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("directory"))

# More signatures than these are verified beside the event loop.
_FEW_ROTATIONS = 8

# Changes that wait to be told; more at once are counted and not told one by one.
_MAX_NEWS = 256


class Directory(Lookup):
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
        self._inviter = inviter
        super().__init__(Members(), Refusals(on_refused))
        self._by_id = self._members.by_id
        self._saver = Saver(self._file, self._by_id)
        self._names = self._members.names
        # Entries with statements that may count later. They are judged again after a change.
        self._unjudged: dict[str, PeerEntry] = {}
        # Members that the broker lists with a key that they have left.
        self._behind: set[str] = set()
        # Statements that have counted here and that the broker's list lacks, by their subject.
        self._missing: dict[str, tuple[Statement, ...]] = {}
        self._news: list[MemberChange] = []
        # Number of earlier keys that the broker listed without a chain of rotations. They are not used.
        self.unproven = 0
        self._keeps_revoked: Callable[[PeerEntry], bool] = lambda entry: False

    def load(self) -> None:
        """Read the directory from disk; without files it is empty. Raise `ValueError` for a damaged file."""
        kept = self._file.load()
        self._version = kept.version
        for item in kept.entries:
            peer = loaded(item, self._mesh_id)
            if reason := self._members.key_of_another(peer):
                # An older version let two members have the same key. The complete list shows the second one
                # again.
                log.warning("kept_peer_refused", reason=reason, name=peer.name, member_id=peer.member_id)
                self._version = None
                continue
            self._remember(peer)
        self._saver.loaded(kept.version)

    def save(self) -> None:
        """Write the changes since the last save. Raise `OSError`, which names the file."""
        self._saver.save(self._kept_version)

    async def save_aside(self) -> None:
        """Write the changes since the last save in a thread. Raise `OSError`, which names the file."""
        await self._saver.save_aside(self._kept_version)

    @property
    def is_saved(self) -> bool:
        """Whether all changes are on disk."""
        return self._saver.is_saved(self._kept_version)

    @property
    def _kept_version(self) -> str | None:
        # Refused entries and missing statements are looked at again after the next start, so the broker has
        # to list them again then.
        is_open = self._has_faults or self._missing or self.refusals.kept()
        return None if is_open else self._version

    @property
    def version(self) -> str | None:
        """The version of the broker's list up to which it was applied."""
        return self._version

    @property
    def lists_older_keys(self) -> bool:
        """Whether the broker lists a member with a key that it has left: its database went back."""
        return bool(self._behind)

    def lost_statements(self) -> Sequence[Statement]:
        """Return the roles and revocations that are in force here and that the broker's list lacks."""
        return [one for statements in self._missing.values() for one in statements]

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
        pin. The previous entry stays then, as it does where the list shows a key that the member has left.
        After a change, entries that were refused before are checked again.
        """
        changed = self._take(entries)
        while changed and (waiting := self.refused()) and self._take(waiting):
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
        """Return the entries that are refused now, or whose statements could not be judged."""
        return [*(refusal.entry for refusal in self.refusals.kept()), *self._unjudged.values()]

    def take_news(self) -> Sequence[MemberChange]:
        """Return the changes of members since the last call, in their order."""
        news, self._news = self._news, []
        return news

    def _take(self, entries: Iterable[PeerEntry]) -> bool:
        changed = False
        for entry in entries:
            known = self._by_id.get(entry.member_id)
            if known is None and len(self._by_id) >= MAX_MEMBERS:
                self._is_full = self._has_faults = True
                continue
            if known is not None and entry.pubkey in known.earlier_keys:
                if entry.member_id not in self._behind:
                    log.warning("older_key_listed", name=known.name, member_id=known.member_id)
                self._behind.add(entry.member_id)
                continue
            self._behind.discard(entry.member_id)
            self._note_missing(entry, known)
            peer = self._peer_of(entry, known)
            is_bound = is_key_bound(entry, known)
            valid = self._judged(entry, is_bound=is_bound)
            peer = with_statements(peer, known, valid)
            reason = self._contradiction(peer, known, valid) if is_bound else "key_not_bound"
            if reason is not None:
                self.refusals.add(reason, entry)
                continue
            self.refusals.accepted(peer.name, peer.member_id)
            if known is not None and known.status == REVOKED and entry.status == ACTIVE:
                log.warning("revoked_member_listed_as_active", name=peer.name, member_id=peer.member_id)
                if self._keeps_revoked(entry):
                    continue
            changed |= self._accept(peer, known, valid)
        return changed

    def _note_missing(self, entry: PeerEntry, known: Peer | None) -> None:
        self._missing.pop(entry.member_id, None)
        if missing := missing_statements(entry, known):
            self._missing[entry.member_id] = missing

    def _judged(self, entry: PeerEntry, *, is_bound: bool) -> Sequence[Statement]:
        """Return the statements of an entry that count."""
        self._unjudged.pop(entry.member_id, None)
        if not entry.statements or not is_bound:
            return ()
        judged = judge(entry.statements, self._mesh_id, self.by_key, self.by_id, listed_role=entry.role)
        if judged.has_open and len(self._unjudged) < _MAX_NEWS:
            self._unjudged[entry.member_id] = entry
        return judged.valid

    def _accept(self, peer: Peer, known: Peer | None, valid: Sequence[Statement]) -> bool:
        """Take a member over, with the pin of its name if it may have it. Return whether that is news."""
        name = peer.name.lower()
        pinned = self._names.pinned(name)
        if pinned not in (None, peer.member_id) and pinned is not None:
            statement = replacement_of(valid, pinned, name)
            if statement is not None and peer.status == ACTIVE:
                peer = self._repin(peer, pinned, statement)
        elif not peer.ephemeral and peer.status != LEFT:
            peer = replace(peer, pins=pins_after(peer.pins, name))
        if peer == known:
            return False
        if known is not None:
            self._tell(changes_between(known, peer))
        self._remember(peer)
        return True

    def _repin(self, peer: Peer, pinned: str, statement: Statement | None) -> Peer:
        """Move the pin of the name of a member to it; return the member with the pin."""
        name, before = peer.name.lower(), self._by_id[pinned]
        log.warning("member_replaced", name=peer.name, member_id=peer.member_id, old_member_id=pinned)
        self._remember(replace(before, pins=tuple(pin for pin in before.pins if pin != name)))
        self._tell([replaced(before, peer, statement, self._signer(statement))])
        return replace(peer, pins=pins_after(peer.pins, name))

    def _signer(self, statement: Statement | None) -> str | None:
        signer = None if statement is None else self.by_key(statement.signer)
        return None if signer is None else signer.name

    def _tell(self, changes: Iterable[MemberChange]) -> None:
        self._news += changes
        del self._news[:-_MAX_NEWS]

    def note_verified(self, peer: Peer) -> Peer:
        """Note that the user has compared the keys of a member, and return it."""
        verified = replace(peer, verified_keys=(peer.pubkey, peer.x25519_pubkey))
        self._remember(verified)
        return verified

    def note_seen(self, peer: Peer) -> None:
        """Note a member with another `last_seen_at`."""
        self._remember(peer)

    def accept_name(self, name: str) -> Peer:
        """Move the pin of a name to the member that the broker lists under it, and return that member.

        Raise `ProtocolError` not_found when no other member has the name.
        """
        peer = self._members.other_bearer(name)
        if peer is None:
            raise ProtocolError(
                "not_found",
                f"No other member has taken the name {name}, so there is nothing to accept. "
                "`claudemesh peers` shows the members.",
            )
        accepted = self._repin(peer, self._names.pinned(name.lower()) or peer.member_id, None)
        self._remember(accepted)
        return accepted

    def revoke(self, statement: Statement) -> bool:
        """Take a revocation over that came as an event; return whether that is news."""
        known = self._by_id.get(statement.subject)
        if known is None:
            return False
        valid = judge((statement,), self._mesh_id, self.by_key, self.by_id).valid
        peer = with_statements(known, known, valid)
        if peer == known:
            return False
        self._tell(changes_between(known, peer))
        self._remember(peer)
        return True

    def _contradiction(self, peer: Peer, known: Peer | None, valid: Sequence[Statement]) -> str | None:
        """Return the reason for which an entry contradicts a pin (a code of pins.py), or None."""
        own_keys = (peer.pubkey, *peer.earlier_keys)
        if known is not None and known.pubkey not in own_keys:
            return "key_changed"
        if self._is_of_another(peer, valid):
            return "name_rebound"
        introduced = self._inviter.introduction if self._inviter else None
        if self._inviter and introduced and introduced.member_id not in self._by_id:
            is_named = peer.name.lower() == introduced.name.lower()
            if peer.member_id == introduced.member_id and self._inviter.pubkey not in own_keys:
                return "key_changed"
            if is_named and peer.member_id != introduced.member_id:
                return "name_rebound"
        return self._members.key_of_another(peer)

    def _is_of_another(self, peer: Peer, valid: Sequence[Statement]) -> bool:
        """Whether the name of a listed member is that of a pinned one, which still has it."""
        name = peer.name.lower()
        pinned = self._names.pinned(name)
        if pinned is None or pinned == peer.member_id or peer.status != ACTIVE:
            return False
        holder = self._by_id[pinned]
        has_it = holder.status == ACTIVE and holder.name.lower() == name
        return has_it and replacement_of(valid, pinned, name) is None

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

    def unlist(self, member_id: str) -> bool:
        """Mark a member that a complete list lacks, unless it has left; return whether that changed it."""
        peer = self._by_id.get(member_id)
        return peer is not None and peer.status == ACTIVE and self._set_status((member_id,), UNLISTED)

    def _set_status(self, member_ids: Iterable[str], status: str) -> bool:
        changed = False
        for member_id in member_ids:
            peer = self._by_id.get(member_id)
            if peer is not None and peer.status != status and peer.revocation is None:
                changed = True
                self._remember(replace(peer, status=status))
        return changed

    def note_profile(
        self,
        member_id: str,
        *,
        summary: str | None = None,
        status: str | None = None,
        visible: bool | None = None,
        sessions: tuple[SessionCard, ...] | None = None,
    ) -> None:
        """Note what the broker has taken of this member's profile, before the list brings it."""
        peer = self._by_id.get(member_id)
        if peer is None:
            return
        self._remember(
            replace(
                peer,
                summary=peer.summary if summary is None else summary,
                presence_status=peer.presence_status if status is None else status,
                visible=peer.visible if visible is None else visible,
                sessions=peer.sessions if sessions is None else sessions,
            )
        )

    def _remember(self, peer: Peer) -> None:
        self._saver.changed(peer.member_id)
        self._members.remember(peer)

    def _peer_of(self, entry: PeerEntry, known: Peer | None) -> Peer:
        peer = peer_of(entry)
        if known is not None:
            # A pin stays, also when a list calls the member ephemeral later.
            ephemeral = peer.ephemeral and known.ephemeral
            peer = replace(peer, pins=known.pins, verified_keys=known.verified_keys, ephemeral=ephemeral)
        chain = longest_chain(peer, known, entry.rotations, self._mesh_id)
        unproven = set(entry.earlier_keys) - {statement.old_pubkey for statement in chain}
        if unproven:
            if not self.unproven:
                log.warning("earlier_keys_without_proof", name=peer.name, keys=len(unproven))
            self.unproven += len(unproven)
        return replace(peer, chain=chain)
