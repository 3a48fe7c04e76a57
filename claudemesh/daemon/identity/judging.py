"""Judgement of keys and statements of members, by the roles of their signers on this host. No I/O.

A statement counts when its signature is valid, and its signer is an active owner or admin of this host's
directory whose role is not below the subject's. A host keeps each statement that has counted once: a broker
that leaves it out later, or lists the member otherwise, changes nothing.

A role that the broker's list gives counts by the signature of any known member. The broker has judged it when
it was given, and this host may have been away: the signer may have got its right and lost it since. Otherwise
hosts that were there and hosts that were away would differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.identity.peer import ACTIVE, LEFT, REVOKED, Peer
from claudemesh.protocol.authority import may_state
from claudemesh.protocol.keys import verify_key_binding
from claudemesh.protocol.replies import PeerEntry
from claudemesh.protocol.rotation import Rotation, proven_chain
from claudemesh.protocol.statements import REPLACEMENT, REVOCATION, ROLE, Statement, newest

FindPeer = Callable[[str], Peer | None]


class Judged(Struct, frozen=True):
    """The statements of an entry that count, and whether others may count later.

    That is so when their signer is not known here yet, or not yet by the role that gives the right.
    """

    valid: tuple[Statement, ...]
    has_open: bool


def judge(
    statements: Iterable[Statement],
    mesh_id: str,
    by_key: FindPeer,
    by_id: FindPeer,
    *,
    listed_role: str | None = None,
) -> Judged:
    """Return the statements that count; `by_key` and `by_id` find members of this host's directory.

    `listed_role` is the role of their subject in the broker's list.
    """
    valid, has_open = [], False
    for one in statements:
        if not one.verify(mesh_id):
            continue
        signer = by_key(one.signer)
        if signer is not None and (_is_listed(one, listed_role) or _counts(one, signer, by_id(one.subject))):
            valid.append(one)
        else:
            has_open = True
    return Judged(tuple(valid), has_open)


def _is_listed(statement: Statement, listed_role: str | None) -> bool:
    return statement.kind == ROLE and statement.detail("role") == listed_role


def _counts(statement: Statement, signer: Peer, subject: Peer | None) -> bool:
    if signer.status != ACTIVE:
        return False
    to = statement.detail("role") if statement.kind == ROLE else None
    # Of a subject that is not known here the list gives the role, after the statement.
    return may_state(signer.role, subject.role if subject is not None else "member", to)


def with_statements(peer: Peer, known: Peer | None, valid: Iterable[Statement]) -> Peer:
    """Return a member of the list with what valid statements say of it, and those that it had before."""
    mine = (*(known.statements if known is not None else ()), *valid)
    of_kinds = (newest(mine, kind, peer.member_id) for kind in (REVOCATION, ROLE))
    kept = tuple(one for one in of_kinds if one is not None)
    keys = (peer.pubkey, *peer.earlier_keys)
    kept = tuple(one for one in kept if one.kind != REVOCATION or one.detail("pubkey") in keys)
    if not kept:
        return peer
    role = newest(kept, ROLE, peer.member_id)
    peer = replace(peer, statements=kept, role=peer.role if role is None else role.detail("role"))
    if peer.revocation is not None and peer.status != LEFT:
        return replace(peer, status=REVOKED)
    return peer


def missing_statements(entry: PeerEntry, known: Peer | None) -> tuple[Statement, ...]:
    """Return the roles and revocations that have counted here and that an entry of the list lacks."""
    mine = () if known is None else known.statements

    def is_listed(one: Statement) -> bool:
        given = newest(entry.statements, one.kind, one.subject)
        return given is not None and given.at_ms >= one.at_ms

    return tuple(one for one in mine if one.kind in (REVOCATION, ROLE) and not is_listed(one))


def replacement_of(valid: Iterable[Statement], pinned: str, name: str) -> Statement | None:
    """Return the statement that takes a name over from the pinned member, or None."""
    for one in valid:
        if one.kind == REPLACEMENT and one.subject == pinned and one.detail("name").lower() == name:
            return one
    return None


def is_key_bound(entry: PeerEntry, known: Peer | None) -> bool:
    """Tell whether the ed25519 key of an entry has signed its x25519 key."""
    if known and (known.pubkey, known.x25519_pubkey) == (entry.pubkey, entry.x25519_pubkey):
        return True  # unchanged since it was applied
    return verify_key_binding(entry.pubkey, entry.x25519_pubkey, entry.x25519_signature)


def longest_chain(
    peer: Peer, known: Peer | None, given: tuple[Rotation, ...], mesh_id: str
) -> tuple[Rotation, ...]:
    """Return the longer chain to the keys of a member: the one that the broker gives, or the known one."""
    before = known.chain if known is not None else ()
    is_same = known is not None and (known.pubkey, known.x25519_pubkey) == (peer.pubkey, peer.x25519_pubkey)
    if is_same and given in ((), before):
        return before
    keys = {"pubkey": peer.pubkey, "x25519_pubkey": peer.x25519_pubkey}
    merged = tuple(dict.fromkeys((*before, *given)))
    chains = [proven_chain(each, mesh_id=mesh_id, **keys) for each in (given, merged)]
    # Of equal chains the one with more of the earlier x25519 keys.
    return max(*chains, before if is_same else (), key=_length)


def _length(chain: tuple[Rotation, ...]) -> tuple[int, int]:
    return len(chain), sum(bool(statement.old_x25519_pubkey) for statement in chain)
