"""Suspected copies of a member's keys: shown to local programs, in the list of conditions and in the metrics.

The broker suspects a copy when a member connects from another host than before. It sends an event to the
member and to the owners and admins of the mesh. A host that was moved on purpose looks the same, so the
daemon only reports it. The condition ends after a day without another event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.changes import member_event
from claudemesh.protocol.events import MemberEvent, News
from claudemesh.runtime.conditions import Conditions

EVENT = "member_clone_suspected"
CONDITION = "clone_suspected"
SHOWN_S = 86_400.0
# Events that are passed on to local programs unchanged.
_PUBLISHED = (EVENT, "member_concurrent_connection")
_NAMED = 5
# Suspected members that are kept; beyond it they are only counted.
_MAX_KEPT = 64


class CloneWatch:
    """Reports members that the broker has seen on two hosts."""

    def __init__(
        self,
        own_id: str,
        conditions: Conditions,
        publish: Callable[[Sequence[BusEvent]], None],
        count: Callable[[], None],
    ) -> None:
        self._own_id = own_id
        self._conditions = conditions
        self._publish = publish
        self._count = count
        self._suspected: dict[str, MemberEvent] = {}
        self._more = 0
        self._end: asyncio.TimerHandle | None = None

    def on_event(self, news: News) -> None:
        """Process an event of the broker, if it is about members on two hosts."""
        if not isinstance(news, MemberEvent) or news.event not in _PUBLISHED:
            return
        card = {"name": news.name, "member_id": news.member_id, "pubkey": news.pubkey}
        self._publish([member_event(news.event, card)])
        if news.event != EVENT:
            return
        self._count()
        self._keep(news)
        self._conditions.begin(CONDITION, self._message())
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(SHOWN_S, self._forget)

    def _keep(self, news: MemberEvent) -> None:
        is_own = news.member_id == self._own_id
        if news.member_id in self._suspected or is_own or len(self._suspected) < _MAX_KEPT:
            self._suspected[news.member_id] = news
        else:
            self._more += 1

    def _forget(self) -> None:
        self._suspected.clear()
        self._more = 0
        self._conditions.end(CONDITION)

    def _message(self) -> str:
        others = [news.name for news in self._suspected.values() if news.member_id != self._own_id]
        sentences = []
        if self._own_id in self._suspected:
            sentences.append(
                "This member has connected from another host than before: its keys may have been copied "
                "with its directory. If you moved it on purpose, do nothing. If not, ask an owner to revoke "
                "it, and join again with a new invite on each of your hosts."
            )
        if others:
            more = len(others[_NAMED:]) + self._more
            named = ", ".join(others[:_NAMED]) + f" and {more} more" * (more > 0)
            sentences.append(
                f"Connected from another host than before: {named}. Keys may have been copied. Ask the "
                "member whether its host was moved; if not, revoke it with `claudemesh member revoke` and "
                "invite it again."
            )
        return " ".join(sentences)
