"""Restating: offers a restored broker the statements about members that it has lost.

A role or a revocation stays in force on this host, because its statement is kept here (identity/judging.py).
A broker whose database went back lists the member without it. The daemons of owners and admins pass the
statement on (`member_restate`), and its own signature makes the broker take it. A revocation whose signer has
no such right any more is put back by vouching (restore/vouching.py).
"""

from __future__ import annotations

from typing import Final

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.restore.vouching import ROLES
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import PeerList
from claudemesh.protocol.statements import Statement
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("restore"))

# Errors with this HTTP status and above may be over at the next try.
_TRANSIENT: Final = 429


class Restating:
    """Offers each lost statement until the broker has taken or refused it."""

    def __init__(self, directory: Directory, own_id: str, ask: Ask, tasks: TaskOwner) -> None:
        self._directory = directory
        self._own_id = own_id
        self._ask = ask
        self._tasks = tasks
        # Signatures of the statements that the broker has answered since its last complete list.
        self._answered: set[bytes] = set()
        self._is_running = False

    def on_page(self, page: PeerList) -> None:
        """Look at the statements that the list lacks, after a page of it was applied."""
        if page.is_whole:
            self._answered.clear()
        own = self._directory.by_id(self._own_id)
        if own is None or own.role not in ROLES or self._is_running or not self._open():
            return
        self._is_running = True
        self._tasks.start(self._offer_all(), "restating")

    def _open(self) -> list[Statement]:
        # The oldest comes first: it may have given the signer of a later one its role.
        lost = (one for one in self._directory.lost_statements() if one.signature not in self._answered)
        return sorted(lost, key=lambda one: one.at_ms)

    async def _offer_all(self) -> None:
        """Go on while statements are taken: each may give the signer of another one its right."""
        try:
            while waiting := self._open():
                taken = {one.signature for one in waiting if await self._offer(one)}
                self._answered |= taken or {one.signature for one in waiting}
        except ProtocolError as error:
            # The next link brings a page again.
            log.info("statements_not_offered", error=error.code)
        finally:
            self._is_running = False

    async def _offer(self, statement: Statement) -> bool:
        try:
            await self._ask("member_restate", {"statement": statement.to_dict()}, replies.nothing)
        except ProtocolError as error:
            if error.status >= _TRANSIENT:
                raise
            log.warning(
                "statement_refused", kind=statement.kind, member_id=statement.subject, error=error.code
            )
            return False
        log.warning("statement_put_back", kind=statement.kind, member_id=statement.subject)
        return True
