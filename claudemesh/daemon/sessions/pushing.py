"""Pushes to sessions: each waits here for the next one, which the client's own process then makes.

Nothing of it is on the disk. After a restart of the daemon a message that is not shown may be pushed once
more, which does no harm: a push is a wake-up, and a message is shown once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from claudemesh.daemon.bus import Bus, Stream
from claudemesh.daemon.inbox.selection import HostMessages, Selection
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.sessions.service import Page, Sessions
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.daemon.sessions.waking import Push, Pushable, Waiting, decide, hold_of
from claudemesh.protocol.jsontext import JsonText
from claudemesh.runtime.clock import Clock

# Messages that one push counts.
_PAGE: Final = 100
# Messages that were pushed and are looked at again.
_MOST_AGAIN: Final = 1000
# The least time between two looks while messages arrive all the time.
_PAUSE_S: Final = 0.05
# The longest time until a further look: states of sessions and of messages change without an event.
_LOOK_S: Final = 5.0
_SOON_S: Final = 1.0


class PushPage(Struct, frozen=True):
    """A push with its messages, oldest first.

    `count` is the number of messages that wait, with `more` when there are further ones, `through` the seq of
    the newest that is counted; 0 when the ids of the push are all.
    """

    push: Push
    items: Sequence[Mapping[str, Any]] = ()
    count: int = 0
    more: bool = False
    through: int = 0


class _Pushed(Struct):
    """The pushes of one session: times by message, and the last one while it is in flight."""

    times: dict[str, tuple[float, ...]] = field(default_factory=dict)
    last: frozenset[str] = frozenset()
    in_flight_since: float | None = None
    # The newest request for a push. An older one, whose client has gone, takes none.
    asked: int = 0


class Pushing:
    """The pushes of all sessions."""

    def __init__(
        self,
        sessions: Sessions,
        inbox: InboxStore,
        bus: Bus,
        clock: Clock,
        trust: SenderTrust,
    ) -> None:
        self._sessions = sessions
        self._inbox = inbox
        self._bus = bus
        self._clock = clock
        self._trust = trust
        self._pushed: dict[str, _Pushed] = {}
        self._deciding = asyncio.Lock()

    async def next(self, session_id: str, wait_s: float) -> PushPage:
        """Return the push that is due, after at most `wait_s`. `ProtocolError` session_not_found."""
        until = self._clock.monotonic() + wait_s
        asked = self._asked(session_id)
        with self._bus.subscribe() as news:
            while True:
                looked_at = self._clock.monotonic()
                found = await self._due(session_id, asked)
                left = until - self._clock.monotonic()
                if found.push.form != "none" or left <= 0 or asked != self._pushed[session_id].asked:
                    return found
                if not await _news(news, min(left, _next_look(found.push))):
                    return found
                await asyncio.sleep(max(0.0, looked_at + _PAUSE_S - self._clock.monotonic()))

    def _asked(self, session_id: str) -> int:
        """Note a request. State of sessions that have ended is dropped."""
        live = self._sessions.ids()
        for ended in self._pushed.keys() - live:
            del self._pushed[ended]
        pushed = self._pushed.setdefault(session_id, _Pushed())
        pushed.asked += 1
        return pushed.asked

    async def _due(self, session_id: str, asked: int) -> PushPage:
        async with self._deciding:
            pushed = self._pushed.setdefault(session_id, _Pushed(asked=asked))
            chosen = Selection(unseen=True, without=self._trust.muted(), readable=True)
            untold = chosen

            async def read(name: str, host: HostMessages) -> Page:
                nonlocal untold
                untold = replace(chosen, session=name, host=host, untold=True)
                found, following = await self._inbox.page(untold, limit=_PAGE)
                # A page of messages that wake no session does not hold back one behind it that does.
                while following is not None and all(hold_of(self._waiting(one, pushed)) for one in found):
                    found, following = await self._inbox.page(untold, after=int(following), limit=_PAGE)
                return found, following

            session, (news, following) = await self._sessions.offer(session_id, read)
            host: HostMessages = "all" if untold.host == "all" else "none"
            again = replace(chosen, session=session.name, host=host, ids=list(pushed.times))
            earlier, _ = await self._inbox.page(again, limit=_MOST_AGAIN)
            untold_ids = frozenset(item["id"] for item in news)
            told = [item for item in earlier if item["id"] not in untold_ids]
            items = sorted([*news, *told], key=lambda item: int(item["seq"]))
            now = self._clock.monotonic()
            _settle(pushed, items, untold_ids)
            pushable = Pushable(
                reach=session.about.reach,
                activity=session.activity,
                in_flight_since=pushed.in_flight_since,
            )
            push = decide([self._waiting(one, pushed) for one in items], pushable, now)
            if push.form == "none":
                return PushPage(push)
            ids = frozenset(push.ids)
            counted = [item for item in items if item["id"] in ids]
            made = PushPage(push, counted, len(counted))
            if following is not None:
                found = await self._inbox.untold.summary(untold)
                await self._give(session_id, untold, found.through)
                made = PushPage(push, counted, found.count, found.more, found.through)
            if asked != pushed.asked:
                return PushPage(replace(push, form="none", reason="in_flight", ids=()))
            # Noted last: a push that could not be given, or whose client has gone meanwhile, is still due.
            pushed.in_flight_since, pushed.last = now, ids
            for one in push.ids:
                pushed.times[one] = (*pushed.times.get(one, ()), now)
            return made

    async def _give(self, session_id: str, counted: Selection, through: int) -> None:
        """Give a session all messages for the host that a push counts. It is at work when it reads them, and
        another one that is idle would be given those beyond the page."""

        async def give(name: str, host: HostMessages) -> bool:
            return await self._inbox.untold.give(replace(counted, session=name, host=host), through)

        while await self._sessions.look(session_id, give):
            pass

    def _waiting(self, item: Mapping[str, Any], pushed: _Pushed) -> Waiting:
        return Waiting(
            id=item["id"],
            trust=self._trust.of(item["sender_member_id"]),
            size=len(item["body"].encode()),
            kind=item["kind"],
            is_mentioned=item["mentioned"],
            intent=_intent(item["meta"]),
            is_whole=not item["body_truncated"] and not item["attachments"],
            hops=item["hops"],
            in_loop=item["in_loop"],
            pushed_at=pushed.times.get(item["id"], ()),
        )


def _intent(meta: JsonText | None) -> str | None:
    given = None if meta is None else meta.value()
    intent = given.get("intent") if isinstance(given, dict) else None
    return intent if isinstance(intent, str) else None


def _settle(pushed: _Pushed, items: Sequence[Mapping[str, Any]], untold: frozenset[str]) -> None:
    """End the flight of a push when a message of it was shown, or the model was told of it."""
    waiting = frozenset(item["id"] for item in items)
    pushed.times = {one: times for one, times in pushed.times.items() if one in waiting}
    if not pushed.last <= untold:
        pushed.in_flight_since, pushed.last = None, frozenset()


def _next_look(push: Push) -> float:
    if push.again_s is None:
        return _LOOK_S
    return max(_PAUSE_S, min(push.again_s, _SOON_S))


async def _news(news: Stream, timeout_s: float) -> bool:
    """Wait for events, at most `timeout_s`. False when the stream has ended: the client asks again."""
    try:
        async with asyncio.timeout(timeout_s):
            await news.waiting()
    except TimeoutError:
        return True
    except StopAsyncIteration:
        return False
    return True
