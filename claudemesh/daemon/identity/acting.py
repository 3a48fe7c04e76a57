"""Acts of this host's member: rename, leave, revoke another member, give a role, accept a name.

A revocation and a role are statements, signed here with the member's key (protocol/statements.py). Their time
is that of the broker's clock, as far as it is known, and later than the last statement about the subject.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.own import OwnMember
from claudemesh.daemon.identity.peer import ACTIVE, Peer
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.home.keyring import Keyring
from claudemesh.protocol import replies
from claudemesh.protocol.authority import may_state
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import HEX_32, UUID_TEXT, check_member_name
from claudemesh.protocol.statements import REPLACEMENT, REVOCATION, ROLE, Statement, newest, sign_statement
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.services import TaskOwner

log = get_logger("member")

_UNAVAILABLE = 500


class MemberActs:
    """Signs, asks the broker, and takes over the result here at once."""

    def __init__(
        self,
        own: OwnMember,
        keyring: Keyring,
        directory: Directory,
        sync: DirectorySync,
        call: Ask,
        broker_now_ms: Callable[[], int],
        tasks: TaskOwner,
    ) -> None:
        """`broker_now_ms` is the wall clock of the broker, as far as it is known."""
        self._tasks = tasks
        # The name that the start has asked for, until the broker has answered.
        self._wanted_name: str | None = None
        self._own = own
        self._keyring = keyring
        self._directory = directory
        self._sync = sync
        self._call = call
        self._broker_now_ms = broker_now_ms
        own.on_lost_name(self._want_again)

    def want_name(self, name: str) -> None:
        """Ask for another name when the link is up, and once more with each link until that is answered."""
        self._wanted_name = check_member_name(name)

    def link_up(self) -> None:
        """Ask for the name that the start wants, if this member has another one."""
        wanted = self._wanted_name
        if wanted is not None and (wanted != self._own.membership.name or self._own.keeps_name):
            self._tasks.start(self._rename_as_wanted(), "rename")

    def _want_again(self, name: str) -> None:
        self._wanted_name = self._wanted_name or name
        self._tasks.start(self._rename_as_wanted(), "rename")

    async def _rename_as_wanted(self) -> None:
        name = self._wanted_name or ""
        try:
            await self.rename(name)
        except ProtocolError as error:
            log.warning("not_renamed", name=name, error=error.code, detail=error.message)
            if error.status >= _UNAVAILABLE:
                return
            self._own.name_refused()
        self._own.keeps_name = False
        self._wanted_name = None

    async def rename(self, name: str) -> str:
        """Give this member another name; return it. Raise the broker's `ProtocolError`."""
        check_member_name(name)
        await self._call("member_rename", {"name": name}, replies.nothing)
        self._own.set(name)
        return name

    async def leave(self, *, force: bool) -> None:
        """Leave the mesh, note that on disk, and end the daemon. Raise the broker's `ProtocolError`."""
        await self._call("leave", {"force": force}, replies.nothing)
        self._own.has_ended("left")

    async def revoke(self, wanted: str, *, force: bool) -> Peer:
        """Revoke a member by name, key or id. Raise `ProtocolError`, which names near members."""
        peer = self._find(wanted)
        statement = self._sign(REVOCATION, peer, pubkey=peer.pubkey)
        params = {"statement": statement.to_dict(), "force": force}
        await self._call("member_revoke", params, replies.nothing)
        if self._directory.revoke(statement):
            self._sync.changed()
        return peer

    async def give_role(self, wanted: str, role: str, *, force: bool) -> Peer:
        """Give a member another role. Raise `ProtocolError`."""
        peer = self._find(wanted)
        params = {"statement": self._sign(ROLE, peer, role=role).to_dict(), "force": force}
        await self._call("member_role", params, replies.nothing)
        return peer

    def replacement(self, name: str, invite_id: str) -> Statement:
        """Sign that the member which joins by an invite takes a name over. Raise `ProtocolError`."""
        pinned = self._directory.resolve(name=name.removeprefix("@"), key=None)
        own = self._directory.by_id(self._own.membership.member_id)
        if own is None or not may_state(own.role, pinned.role):
            raise ProtocolError(
                "not_authorized",
                f"This member may not let another one take the name of {pinned.name} over. An owner of the "
                "mesh can.",
            )
        if pinned.status == ACTIVE and pinned.name.lower() == name.removeprefix("@").lower():
            raise ProtocolError(
                "name_taken",
                f"{pinned.name} is an active member of this mesh. It has to leave, or to be revoked first.",
                next=f"claudemesh member revoke {pinned.name}",
            )
        return self._sign(REPLACEMENT, pinned, name=name.removeprefix("@"), invite_id=invite_id)

    def accept(self, name: str) -> Peer:
        """Move the pin of a name to the member that has it now; it is on the disk when this returns."""
        peer = self._directory.accept_name(check_member_name(name.removeprefix("@")))
        try:
            self._directory.save()
        except OSError as error:
            raise ProtocolError(
                "storage_unavailable",
                f"The name is accepted until the daemon ends, but not on disk: {explain(error)}.",
            ) from error
        self._sync.changed()
        return peer

    def _sign(self, kind: str, subject: Peer, **details: str) -> Statement:
        last = newest(subject.statements, kind, subject.member_id)
        at_ms = max(self._broker_now_ms(), 0 if last is None else last.at_ms + 1)
        return sign_statement(
            self._keyring.current,
            kind,
            mesh_id=self._own.membership.mesh_id,
            subject=subject.member_id,
            at_ms=at_ms,
            **details,
        )

    def _find(self, wanted: str) -> Peer:
        named = wanted.removeprefix("@")
        found: dict[str, Any] = {"name": named, "key": None}
        if HEX_32.fullmatch(named):
            found = {"name": None, "key": named}
        elif UUID_TEXT.fullmatch(named) and (peer := self._directory.by_id(named)) is not None:
            return peer
        peer = self._directory.resolve(**found)
        if found["name"] is not None:
            self._directory.check_name(peer, named)
        return peer
