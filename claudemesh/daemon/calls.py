"""Calls to the broker: requests that wait for their reply, and the one place where a reply is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import Call, Reply, encode_frame
from claudemesh.protocol.replies import BadReply, Listing, Read
from claudemesh.runtime import aside
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("broker_replies"))

WRONG = "broker_replies_wrong"
ANSWER_S = 10.0
_MAX_CALLS = 256
# Upper bound for the pages of a list; no list has as many.
MOST_PAGES = 20_000

T = TypeVar("T")


class Ask(Protocol):
    """Asks the broker and returns what `read` makes of the reply.

    Raise the broker's `ProtocolError`, broker_unavailable, or bad_reply for a malformed reply.
    """

    async def __call__(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        """Send a call."""
        ...


async def whole_topic_list(ask: Ask, most_pages: int = MOST_PAGES) -> replies.TopicList:
    """Ask for all topics, page by page, without the numbers of their subscribers. Raise `ProtocolError`."""
    params: dict[str, Any] = {"counts": False}
    items: list[replies.TopicEntry] = []
    faults: list[BadReply] = []
    for _ in range(most_pages):
        try:
            page = await ask("topic_list", params, replies.topic_list)
        except ProtocolError as error:
            if error.code != "unknown_field":
                raise
            return await ask("topic_list", {}, replies.topic_list)  # an older broker, which lists all at once
        items += page.items
        faults += page.faults
        if len(items) > replies.MAX_TOPICS:
            raise ProtocolError(replies.BAD_REPLY, f"The broker lists more than {replies.MAX_TOPICS} topics.")
        if page.next is None:
            return replies.TopicList(tuple(items), faults=tuple(faults))
        params["after"] = page.next
    raise ProtocolError(replies.BAD_REPLY, "The broker's list of topics has no end.")


class WrongReplies:
    """Counts malformed frames, events and replies of the broker, and shows them as one condition.

    The first fault of each kind of frame, event or reply is logged. The kind is logged again only after a
    correct one or a new link.
    """

    def __init__(self, conditions: Conditions, count: Callable[[str], None]) -> None:
        """`count` gets the kind of each wrong frame, event or reply."""
        self._conditions = conditions
        self._count = count
        self._wrong: dict[str, ProtocolError] = {}

    async def read(self, kind: str, read: Read[T], value: Any, weight: int = 0) -> T:
        """Return the result of `read`. A `ProtocolError` is noted and raised again."""
        try:
            found = await aside.run(weight, read, value)
        except ProtocolError as error:
            self.note(kind, error)
            raise
        faults = found.faults if isinstance(found, Listing) else ()
        if faults:
            self.note(kind, faults[0], count=len(faults))
        else:
            self.right(kind)
        return found

    def note(self, kind: str, error: ProtocolError, count: int = 1) -> None:
        """Note a malformed frame, event or reply of this kind."""
        self._count(kind)
        if kind not in self._wrong:
            field = error.field if isinstance(error, BadReply) else None
            log.warning("broker_reply_wrong", kind=kind, field=field, detail=error.message, count=count)
        self._wrong[kind] = error
        self._show()

    def right(self, kind: str) -> None:
        """Note a correct frame, event or reply of this kind."""
        if self._wrong.pop(kind, None) is not None:
            self._show()

    def link_down(self) -> None:
        """Forget the faults of this link."""
        self._wrong.clear()
        self._show()

    def _show(self) -> None:
        last = next(reversed(self._wrong.values()), None)
        text = None
        if last is not None:
            text = (
                f"The broker says what the protocol does not allow, and that is not used: {last.message} "
                "This host goes on with what it knew before. Upgrade the broker, or tell its operator."
            )
        self._conditions.set(WRONG, text)


class Calls:
    """The open calls of one link."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], replies: WrongReplies) -> None:
        self._send = send
        self._replies = replies
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._next = 0

    async def ask(self, method: str, params: Mapping[str, Any], read: Read[T], timeout_s: float) -> T:
        """Send a call, wait for its reply, and read it. Raise the errors of `Ask`."""
        if len(self._waiting) >= _MAX_CALLS:
            raise ProtocolError("daemon_busy", "Too many requests wait for the broker: try again shortly.")
        self._next += 1
        call_id = f"c{self._next}"
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        try:
            await self._send(encode_frame(Call(call_id, method, dict(params))).encode())
            async with asyncio.timeout(timeout_s):
                ok, weight = await future
        except (ConnectionError, TimeoutError) as error:
            raise broker_unavailable() from error
        finally:
            self._waiting.pop(call_id, None)
            if future.done() and not future.cancelled():
                # When the link ends while the call is sent, both fail, and the future is not awaited.
                future.exception()
        return await self._replies.read(method, read, ok, weight)

    def answer(self, reply: Reply, weight: int = 0) -> None:
        """Take a reply, and the number of its values at most. One without an open call is ignored."""
        if reply.error is not None:
            self.fail(str(reply.id), ProtocolError(reply.error["code"], reply.error["message"]))
            return
        future = self._waiting.get(str(reply.id))
        if future is not None and not future.done():
            future.set_result((reply.ok, weight))

    def fail(self, call_id: str, error: Exception) -> None:
        """Fail one call, if it is open."""
        future = self._waiting.get(call_id)
        if future is not None and not future.done():
            future.set_exception(error)

    def link_down(self) -> None:
        """Fail all calls: no reply will come."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the link closed"))
        self._replies.link_down()


def broker_unavailable() -> ProtocolError:
    """Return the error of a request that needs the broker now."""
    return ProtocolError(
        "broker_unavailable", "The daemon is not connected to its broker: try again when it is."
    )
