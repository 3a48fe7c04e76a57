"""Suspected copies of a member's keys: shown to local programs, in the list of conditions and in the metrics.

The broker suspects one when a member connects from another host than before, and tells the member and the
owners and admins of the mesh. A host that was moved on purpose looks the same, so nothing is done about it
here. The condition ends by itself after a day without another event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from claudemesh.daemon.bus import BusEvent
from claudemesh.protocol.events import MemberEvent, News
from claudemesh.runtime.conditions import Conditions

EVENT = "member_clone_suspected"
CONDITION = "clone_suspected"
SHOWN_S = 86_400.0
# Events that local programs hear of as the broker tells them.
_PUBLISHED = (EVENT, "member_concurrent_connection")
_NAMED = 5


class CloneWatch:
    """Tells what the broker says about members that are on two hosts."""

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
        self._end: asyncio.TimerHandle | None = None

    def on_event(self, news: News) -> None:
        """Take over what concerns members on two hosts."""
        if not isinstance(news, MemberEvent) or news.event not in _PUBLISHED:
            return
        card = {"name": news.name, "member_id": news.member_id, "pubkey": news.pubkey}
        self._publish([BusEvent(news.event, card)])
        if news.event != EVENT:
            return
        self._count()
        self._suspected[news.member_id] = news
        self._conditions.begin(CONDITION, self._message())
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(SHOWN_S, self._forget)

    def _forget(self) -> None:
        self._suspected.clear()
        self._conditions.end(CONDITION)

    def _message(self) -> str:
        others = [news.name for news in self._suspected.values() if news.member_id != self._own_id]
        sentences = []
        if self._own_id in self._suspected:
            sentences.append(
                "This member has connected from another host than before: its keys may have been copied "
                "with its directory. If you moved it on purpose, nothing is to be done. If not, let an owner "
                "revoke it, and join anew with an invite on each host that is yours."
            )
        if others:
            named = ", ".join(others[:_NAMED]) + (
                f" and {len(others) - _NAMED} more" * (len(others) > _NAMED)
            )
            sentences.append(
                f"Connected from another host than before: {named}. Keys may have been copied. Ask the "
                "member whether its host was moved; if not, revoke it at the broker with `claudemesh broker "
                "member revoke` and invite it anew."
            )
        return " ".join(sentences)
