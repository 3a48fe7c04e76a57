"""Publishing of this host's sessions: other members see their names, clients, states and reach.

They are a part of the member's profile at the broker, and each change is told to every member of the mesh. A
session that comes or goes is told within a second, a change of states alone at most every ten seconds. The
last change is always told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Final

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.session_cards import SessionCard
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("sessions"))

_EVERY_S: Final = 1.0
_STATES_EVERY_S: Final = 10.0


class SessionPublishing:
    """Sends the sessions to the broker when they differ from those in the member list."""

    def __init__(
        self,
        cards: Callable[[], tuple[SessionCard, ...]],
        call: Ask,
        directory: Directory,
        own_id: str,
    ) -> None:
        """`cards` returns the sessions to be told, none where they are not published."""
        self._cards = cards
        self._call = call
        self._directory = directory
        self._own_id = own_id
        self._changed = asyncio.Event()
        # Of the loop's clock: from then on states alone are told again.
        self._states_at = 0.0

    def wake(self) -> None:
        """Note that sessions, the setting, the link or the member list may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                is_told = await self._tell()
            except ProtocolError as error:
                is_told = True
                # Without a link the next one wakes this; an older broker knows no sessions.
                if error.code not in ("broker_unavailable", "unknown_field"):
                    log.warning("sessions_not_published", error=error.code, detail=error.message)
                    self.wake()
            if is_told:
                await asyncio.sleep(_EVERY_S)

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Return the commit of other settings."""
        return self.wake

    async def _tell(self) -> bool:
        cards = self._cards()
        own = self._directory.by_id(self._own_id)
        if own is None or own.sessions == cards:
            return False
        loop = asyncio.get_running_loop()
        if loop.time() < self._states_at and _without_states(own.sessions) == _without_states(cards):
            loop.call_at(self._states_at, self.wake)
            return False
        self._states_at = loop.time() + _STATES_EVERY_S
        await self._call("profile", {"sessions": [asdict(one) for one in cards]}, replies.nothing)
        self._directory.note_profile(self._own_id, sessions=cards)
        return True


def _without_states(cards: Iterable[SessionCard]) -> list[SessionCard]:
    return [replace(one, state="idle") for one in cards]
