"""Answers to the calls of one connection."""

from __future__ import annotations

from collections.abc import Callable

from claudemesh.broker.calls import table
from claudemesh.broker.calls.base import Caller
from claudemesh.broker.ws.unanswered import Unanswered
from claudemesh.protocol.frames import Call, Reply
from claudemesh.runtime.services import TaskOwner


class Calling:
    """Runs calls and sends their replies.

    A call is answered before the next frame is read, except one that waits for its turn (`table.PACED`): it
    counts as an unanswered send, so the number of those that wait is bounded.
    """

    def __init__(
        self, reply: Callable[[Reply], None], unanswered: Unanswered, on_change: Callable[[], None]
    ) -> None:
        """`on_change` is called when there is room for another call that waits."""
        self._reply = reply
        self._unanswered = unanswered
        self._on_change = on_change
        self._tasks = TaskOwner()

    async def take(self, caller: Caller, call: Call, size: int) -> None:
        """Run a call whose frame has `size` characters."""
        if call.method not in table.PACED:
            await self._answer(caller, call)
            return
        self._unanswered.add(size)
        self._tasks.start(self._answer_later(caller, call, size), call.method)

    async def stop(self) -> None:
        """Answer no call any more."""
        await self._tasks.stop()

    async def _answer(self, caller: Caller, call: Call) -> None:
        ok, error = await table.answer(caller, call.method, call.params)
        self._reply(Reply(call.id, ok, error))

    async def _answer_later(self, caller: Caller, call: Call, size: int) -> None:
        try:
            await self._answer(caller, call)
        finally:
            self._unanswered.remove(size)
            self._on_change()
