"""News for a session: how many messages it was not told of, and the note that it was told."""

from __future__ import annotations

from collections.abc import Awaitable

from msgspec.structs import replace

from claudemesh.daemon.inbox.selection import HostMessages, Selection
from claudemesh.daemon.inbox.untold import Summary, UntoldMessages
from claudemesh.daemon.sessions.service import Sessions
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.runtime.clock import Clock


class SessionNews:
    """The news of all sessions."""

    def __init__(self, sessions: Sessions, untold: UntoldMessages, trust: SenderTrust, clock: Clock) -> None:
        self._sessions = sessions
        self._untold = untold
        self._trust = trust
        self._clock = clock

    async def of(self, session_id: str, *, with_told: bool = False) -> Summary:
        """Return the messages that a session has not seen and, unless `with_told`, was not told of.

        `ProtocolError` session_not_found.
        """

        def read(name: str, host: HostMessages) -> Awaitable[Summary]:
            return self._untold.summary(replace(self._selection(name, host), untold=not with_told))

        return await self._sessions.look(session_id, read)

    async def told(self, session_id: str, through: int) -> None:
        """Note that a session was told of its messages up to a seq. `ProtocolError` session_not_found."""

        async def note(name: str, host: HostMessages) -> bool:
            return await self._untold.note(self._selection(name, host), through, self._clock.wall_ms())

        while await self._sessions.look(session_id, note):
            pass

    def _selection(self, name: str, host: HostMessages) -> Selection:
        """Return the messages that a session was not told of, without those of muted members."""
        return Selection(session=name, host=host, unseen=True, untold=True, without=self._trust.muted())
