"""Loop guard: two sessions that answer each other by themselves wake each other six times in ten minutes.

A message of a person has no hops; an automatic answer has one more than the message that it answers. Each
answer between two sessions, in either direction, is a turn. One beyond the limit is delivered and wakes no
session, and it is no turn itself. See docs/spec/daemon.md, Trust and loops. Times are seconds of the
monotonic clock; a daemon that starts again counts from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.inbox.sealed import OpenedBody, Sealed
from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.protocol.errors import ProtocolError

MAX_TURNS: Final = 6
WINDOW_S: Final = 600.0
_MOST_PAIRS: Final = 4096
_MOST_BEYOND: Final = 16

# The session here, the member there and its session; "" for a host without a named session.
Pair: TypeAlias = tuple[str, str, str]


class Turn(Struct, frozen=True):
    """An automatic answer: its time, its message, and whether it came beyond the limit."""

    at: float
    message: str
    is_beyond: bool


def next_turn(turns: Sequence[Turn], message: str, now: float) -> Sequence[Turn]:
    """Return the turns of a pair within the window, the newest one last. A repeated message is no new one."""
    kept = [one for one in turns if now - one.at < WINDOW_S]
    known = [one for one in kept if one.message == message]
    if known:
        return [one for one in kept if one not in known] + known
    free = [one for one in kept if not one.is_beyond]
    # A peer may send without end.
    beyond = [one for one in kept if one.is_beyond][-_MOST_BEYOND:]
    return [*free, *beyond, Turn(now, message, len(free) >= MAX_TURNS)]


class LoopGuard:
    """Counts the automatic turns of each pair of sessions."""

    def __init__(self, now: Callable[[], float], directory: Directory) -> None:
        self._now = now
        self._directory = directory
        self._pairs: dict[Pair, Sequence[Turn]] = {}

    def received(self, rows: Sequence[InboxRow]) -> Sequence[InboxRow]:
        """Return received messages, those beyond the limit marked."""
        return [self._marked(row) if row.hops else row for row in rows]

    def opened(self, message: Sealed, body: OpenedBody) -> OpenedBody:
        """Return the body of a message that is opened late, marked like a received one."""
        if not body.hops:
            return body
        pair = (body.to_session or "", message.sender_member_id, body.from_session or "")
        return replace(body, in_loop=self._take(pair, message.id))

    def sent(self, request: SendRequest, client_message_id: str) -> bool:
        """Note a send of this host. Whether it is beyond the limit, so that it wakes no session."""
        if not request.hops or request.target.kind != "dm":
            return False
        try:
            peer = self._directory.resolve(name=request.target.name, key=request.target.ref)
        except ProtocolError:
            return False
        pair = (request.from_session or "", peer.member_id, request.target.session or "")
        return self._take(pair, client_message_id)

    def _marked(self, row: InboxRow) -> InboxRow:
        pair = (row.to_session or "", row.sender_member_id, row.from_session or "")
        return msgspec.structs.replace(row, in_loop=self._take(pair, row.client_message_id))

    def _take(self, pair: Pair, message: str) -> bool:
        now = self._now()
        if pair not in self._pairs and len(self._pairs) >= _MOST_PAIRS:
            self._forget(now)
        turns = next_turn(self._pairs.pop(pair, ()), message, now)
        self._pairs[pair] = turns
        return turns[-1].is_beyond

    def _forget(self, now: float) -> None:
        self._pairs = {pair: one for pair, one in self._pairs.items() if now - one[-1].at < WINDOW_S}
        while len(self._pairs) >= _MOST_PAIRS:
            # The pair whose last turn is the oldest.
            del self._pairs[next(iter(self._pairs))]
