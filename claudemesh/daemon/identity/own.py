"""This host's own member: its name and role as the broker lists them, and the end of the membership."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.judging import judge
from claudemesh.daemon.identity.peer import ACTIVE, Peer
from claudemesh.home.ended import REVOKED, Ended, Reason, save_ended
from claudemesh.home.membership import Membership, load_membership, save_membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.events import MEMBER_REVOKED, MemberEvent, News
from claudemesh.protocol.fields import Json
from claudemesh.protocol.statements import REVOCATION, Statement
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.logs import get_logger

log = get_logger("member")


class OwnMember:
    """Keeps membership.json in step with the list, and ends the daemon when the membership ends."""

    def __init__(
        self,
        membership: Membership,
        paths: DaemonPaths,
        directory: Directory,
        end: Callable[[ExitWith | None], None],
    ) -> None:
        self.membership = membership
        self._path = paths.membership
        self._ended = paths.ended
        self._directory = directory
        self._end = end
        self._is_over = False
        # The member that has revoked this one, as far as its statement has been verified here.
        self._revoked_by: Peer | None = None
        self._handlers: list[Callable[[Membership], None]] = []
        self._ask_for_name: Callable[[str], None] = lambda name: None
        # Whether the broker is asked for a name that it has lost. The list does not change it meanwhile.
        self.keeps_name = False

    def on_change(self, handler: Callable[[Membership], None]) -> None:
        """Call `handler` with the membership after each change of it."""
        self._handlers.append(handler)

    def on_lost_name(self, ask: Callable[[str], None]) -> None:
        """Let `ask` ask the broker for a name of this member that a restore has taken from its database."""
        self._ask_for_name = ask

    def history_changed(self) -> None:
        """Ask for the name of this member again when a broker with another history lists an earlier one."""
        peer = self._directory.by_id(self.membership.member_id)
        if peer is not None and peer.status == ACTIVE and peer.name != self.membership.name:
            log.warning("name_lost_by_broker", name=self.membership.name, listed=peer.name)
            self.keeps_name = True
            self._ask_for_name(self.membership.name)

    def name_refused(self) -> None:
        """Take over the name that the list gives: the broker does not give the other one again."""
        self.keeps_name = False
        self.directory_changed()

    def directory_changed(self) -> None:
        """Take over the name and the role that the list gives this member."""
        peer = self._directory.by_id(self.membership.member_id)
        if peer is not None:
            self.set(self.membership.name if self.keeps_name else peer.name, peer.role)

    def set(self, name: str, role: str | None = None) -> None:
        """Change name and role, also in membership.json. The address there may have changed meanwhile."""
        role = role or self.membership.role
        if (name, role) == (self.membership.name, self.membership.role):
            return
        self.membership = replace(self.membership, name=name, role=role)
        try:
            save_membership(self._path, replace(load_membership(self._path), name=name, role=role))
        except (OSError, ExitWith) as error:
            # The list gives the name again at the next start.
            log.warning("membership_not_saved", path=str(self._path), error=str(error))
        log.info("own_member_changed", name=name, role=role)
        for told in self._handlers:
            told(self.membership)

    def on_event(self, news: News) -> None:
        """End the daemon when a member or an operator has revoked this one."""
        if not isinstance(news, MemberEvent) or news.event != MEMBER_REVOKED:
            return
        if news.member_id == self.membership.member_id:
            self._revoked_by = self._signer_of(news.statement)
            self.has_ended("revoked")

    def note_revocation(self, value: Json) -> None:
        """Note the signer of a statement by which the broker refuses this host. The refusal follows."""
        try:
            self._revoked_by = self._signer_of(Statement.parse(value))
        except InvalidField as error:
            log.warning("revocation_malformed", error=error.message)

    def _signer_of(self, statement: Statement | None) -> Peer | None:
        """Return the owner or admin that has revoked this member by a genuine statement."""
        member_id = self.membership.member_id
        if statement is None or (statement.kind, statement.subject) != (REVOCATION, member_id):
            return None
        by_key, by_id = self._directory.by_key, self._directory.by_id
        own = by_id(member_id)
        if own is not None and statement.detail("pubkey") not in (own.pubkey, *own.earlier_keys):
            return None
        judged = judge([statement], self.membership.mesh_id, by_key, by_id)
        return by_key(statement.signer) if judged.valid else None

    def has_ended(self, reason: Reason) -> None:
        """Note on disk that the membership has ended, then end the daemon with 77."""
        if self._is_over:
            return
        self._is_over = True
        by = self._revoked_by if reason == REVOKED else None
        ended = Ended(reason) if by is None else Ended(reason, by.pubkey, by.name, by.role)
        try:
            if not self.membership.ephemeral:
                save_ended(self._ended, ended)
        except OSError as error:
            # The broker refuses the next start too.
            log.warning("end_not_noted", path=str(self._ended), error=str(error))
        self._end(ended.exit(self.membership.slug))
