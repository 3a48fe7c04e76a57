"""The sessions of this host: registers them, renews their leases, ends them, and gives them messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from msgspec.structs import replace

from claudemesh.daemon.inbox.selection import HostMessages
from claudemesh.daemon.sessions import process
from claudemesh.daemon.sessions.state import (
    LEASE_S,
    MAX_SESSIONS,
    Registration,
    Session,
    choose_name,
    has_ended,
    receiver,
    same_session,
)
from claudemesh.daemon.sessions.store import SessionStore
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.session_cards import MAX_CARDS, Activity, SessionCard
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger

log = get_logger("sessions")

_EVERY_S = 5.0

R = TypeVar("R")
# Messages, and the cursor of the next page or None.
Page: TypeAlias = tuple[Sequence[Mapping[str, Any]], str | None]
ReadPage: TypeAlias = Callable[[str, HostMessages], Awaitable[Page]]


class Sessions:
    """The live sessions. `host_messages` returns the value of `[sessions] deliver_host_messages`."""

    def __init__(
        self,
        store: SessionStore,
        clock: Clock,
        new_id: Callable[[], str],
        host_messages: Callable[[], str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._host_messages = host_messages
        self._change_handlers: list[Callable[[], None]] = []
        self._live: dict[str, Session] = {}
        # The directory of each name that was given.
        self._known: dict[str, str | None] = {}
        # One change at a time: a name is chosen and written before the next one is chosen.
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Take up the sessions of the run before, each with a new lease."""
        now = self._clock.monotonic()
        for known in await self._store.load():
            self._known[known.name] = known.about.cwd
            if known.session_id is not None:
                self._live[known.session_id] = Session(
                    session_id=known.session_id,
                    name=known.name,
                    about=known.about,
                    activity="idle",
                    expires_at=now + LEASE_S,
                    active_at=now,
                )

    async def register(self, about: Registration) -> Session:
        """Register a session, or renew the one that registers again. `ProtocolError` too_many_sessions."""
        async with self._changing:
            await self._end_those_that_ended()
            found = same_session(self._live.values(), about)
            if found is None and len(self._live) >= MAX_SESSIONS:
                text = f"This host has {MAX_SESSIONS} live sessions: end one of them first."
                raise ProtocolError("too_many_sessions", text, limit=MAX_SESSIONS)
            now = self._clock.monotonic()
            session = Session(
                session_id=self._new_id() if found is None else found.session_id,
                name=self._name_for(about) if found is None else found.name,
                about=about,
                activity="idle" if found is None else found.activity,
                expires_at=now + LEASE_S,
                active_at=now,
            )
            for forgotten in await self._store.save(session):
                self._known.pop(forgotten, None)
            self._live[session.session_id] = session
            self._known[session.name] = about.cwd
            self._changed()
            return session

    def renew(self, session_id: str, activity: Activity) -> Session:
        """Renew a lease, and note what the session does. `ProtocolError` session_not_found."""
        session = self._live.get(session_id)
        if session is None or self._has_ended(session):
            raise _not_found(session_id)
        now = self._clock.monotonic()
        active_at = session.active_at if activity == session.activity else now
        renewed = replace(session, activity=activity, expires_at=now + LEASE_S, active_at=active_at)
        self._live[session_id] = renewed
        if activity != session.activity:
            self._changed()
        return renewed

    async def end(self, session_id: str) -> None:
        """End a session. `ProtocolError` session_not_found."""
        async with self._changing:
            if session_id not in self._live:
                raise _not_found(session_id)
            await self._end([self._live[session_id]])

    async def live(self) -> list[Session]:
        """Return the live sessions by name."""
        await self.end_those_that_ended()
        return sorted(self._live.values(), key=lambda one: one.name)

    def on_change(self, handler: Callable[[], None]) -> None:
        """Call `handler` when a session begins, ends, or changes what others see of it."""
        self._change_handlers.append(handler)

    def _changed(self) -> None:
        for handler in self._change_handlers:
            handler()

    def cards(self) -> tuple[SessionCard, ...]:
        """Return the sessions as other members see them: at most 32, those that were active last."""
        newest = sorted(self._live.values(), key=lambda one: one.active_at, reverse=True)[:MAX_CARDS]
        return tuple(
            SessionCard(one.name, one.about.client, one.activity, one.about.reach)
            for one in sorted(newest, key=lambda one: one.name)
        )

    def lease_left_s(self, session: Session) -> int:
        """Return the seconds until the end of a lease."""
        return max(0, round(session.expires_at - self._clock.monotonic()))

    async def list_for(self, name: str, read: ReadPage) -> Page:
        """Read a page of a session that asks for its messages, and give it those for the host in the page.

        `read` gets its name, and the messages for the host that are for it. `ProtocolError`
        session_not_found: no live session has the name.
        """
        async with self._changing:
            return await self._given(await self._asking(name), read)

    async def look(self, session_id: str, read: Callable[[str, HostMessages], Awaitable[R]]) -> R:
        """Read something of the messages of a session that asks. No message for the host is given to it.

        `read` gets its name, and the messages for the host that are for it. `ProtocolError`
        session_not_found.
        """
        async with self._changing:
            session = self._live.get(session_id)
            asking = await self._asking(session_id if session is None else session.name)
            return await read(asking.name, self._host_part(asking))

    async def offer(self, session_id: str, read: ReadPage) -> tuple[Session, Page]:
        """Return a session that waits for messages, and a page of them as `list_for` does.

        It renews no lease. `ProtocolError` session_not_found.
        """
        async with self._changing:
            await self._end_those_that_ended()
            session = self._live.get(session_id)
            if session is None:
                raise _not_found(session_id)
            return session, await self._given(session, read)

    async def _asking(self, name: str) -> Session:
        await self._end_those_that_ended()
        asking = next((one for one in self._live.values() if one.name == name), None)
        if asking is None:
            raise _not_found(name)
        now = self._clock.monotonic()
        asking = replace(asking, active_at=now, expires_at=now + LEASE_S)
        self._live[asking.session_id] = asking
        return asking

    def _host_part(self, session: Session) -> HostMessages:
        """Return the messages for the host that are for a session. It gets none that another one would be
        given."""
        mode = self._host_messages()
        if mode != "one":
            return "all" if mode == "all" else "none"
        return "free" if receiver(self._live.values(), session) == session else "none"

    async def _given(self, session: Session, read: ReadPage) -> Page:
        part = self._host_part(session)
        items, following = await read(session.name, part)
        free = [one["id"] for one in items if part == "free" and one["for_session"] is None]
        if free:
            await self._store.give(session.name, free)
        given = frozenset(free)
        own = [{**one, "for_session": session.name} if one["id"] in given else one for one in items]
        return own, following

    def ids(self) -> frozenset[str]:
        """Return the ids of the live sessions."""
        return frozenset(self._live)

    async def run(self) -> None:
        """End sessions whose lease or process has ended, until cancelled. A failure is tried again."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.end_those_that_ended()
            except StorageError as error:
                log.warning("sessions_not_ended", error=str(error))

    async def end_those_that_ended(self) -> None:
        """End the sessions whose lease or process has ended."""
        async with self._changing:
            await self._end_those_that_ended()

    async def _end_those_that_ended(self) -> None:
        await self._end([one for one in self._live.values() if self._has_ended(one)])

    async def _end(self, sessions: list[Session]) -> None:
        if not sessions:
            return
        await self._store.end([one.name for one in sessions])
        for one in sessions:
            self._live.pop(one.session_id, None)
        self._changed()

    def _has_ended(self, session: Session) -> bool:
        return has_ended(session, self._clock.monotonic(), process.is_running)

    def _name_for(self, about: Registration) -> str:
        return choose_name(about, self._known, [one.name for one in self._live.values()])


def _not_found(what: str) -> ProtocolError:
    text = f"This host has no live session {what}. Register it with POST /v1/sessions."
    return ProtocolError("session_not_found", text)
