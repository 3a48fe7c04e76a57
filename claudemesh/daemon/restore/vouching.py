"""Vouching: confirms members that a restore of the broker has lost or revived, by the keys pinned here.

The broker asks the daemons of owners and admins (broker/http/rejoin.py). This host confirms a member only
when id, name and both keys are those that it has pinned, with the role and the status under which it knows
the member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import ACTIVE, REVOKED, UNLISTED, Peer
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import News, UnconfirmedMember
from claudemesh.protocol.replies import PeerEntry
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("restore"))

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


class Vouching:
    """Confirms members to the broker, and has members revoked again that a restore has revived."""

    def __init__(self, directory: Directory, own_id: str, ask: Ask, tasks: TaskOwner) -> None:
        self._directory = directory
        self._own_id = own_id
        self._ask = ask
        self._tasks = tasks
        directory.on_revived(self._on_revived)

    def on_event(self, news: News) -> None:
        """React to a member that asks to be confirmed."""
        if isinstance(news, UnconfirmedMember):
            self._confirm(news)

    def _on_revived(self, entry: PeerEntry) -> bool:
        """Revoke a member again that this host knows as revoked, if its role allows that."""
        own = self._directory.by_id(self._own_id)
        if own is None or own.role not in ROLES:
            return False
        self._confirm(as_unconfirmed(entry))
        return True

    def _confirm(self, member: UnconfirmedMember) -> None:
        params = vouch_for(member, self._directory)
        if params is not None:
            self._tasks.start(self._vouch(params), "vouching")

    async def _vouch(self, params: Mapping[str, Any]) -> None:
        """Confirm a member. After a failure the broker asks again."""
        member_id, status = params["member_id"], params["status"]
        try:
            await self._ask("member_vouch", params, replies.nothing)
        except ProtocolError as error:
            log.warning("member_not_confirmed", member_id=member_id, error=str(error))
        else:
            log.warning("member_confirmed", member_id=member_id, name=params["name"], status=status)


def _is_the_same(member: UnconfirmedMember, peer: Peer) -> bool:
    return (
        peer.status in _STATUSES
        and member.name.lower() == peer.name.lower()
        and member.pubkey == peer.pubkey
        and member.x25519_pubkey == peer.x25519_pubkey
    )
