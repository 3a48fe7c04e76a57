"""Changes of this member's own profile: at most one call a second, and the last change wins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from claudemesh.daemon.calls import Ask
from claudemesh.protocol import replies
from claudemesh.runtime.services import TaskOwner

_EVERY_S: Final = 1.0


class ProfileUpdates:
    """Sends changes of the profile. Those that come within a second of the last call share the next one."""

    def __init__(self, call: Ask, tasks: TaskOwner) -> None:
        self._call = call
        self._tasks = tasks
        self._waiting: dict[str, Any] = {}
        self._sent: asyncio.Future[None] | None = None
        self._free = asyncio.Event()
        self._free.set()

    async def set(self, given: Mapping[str, Any]) -> None:
        """Return when the broker has the change, or one that replaces it. Raise its `ProtocolError`."""
        self._waiting.update(given)
        if self._sent is None:
            self._sent = asyncio.get_running_loop().create_future()
            self._tasks.start(self._send(), "profile")
        await asyncio.shield(self._sent)

    async def _send(self) -> None:
        await self._free.wait()
        given, self._waiting = self._waiting, {}
        sent, self._sent = self._sent, None
        self._free.clear()
        asyncio.get_running_loop().call_later(_EVERY_S, self._free.set)
        assert sent is not None
        try:
            await self._call("profile", given, replies.nothing)
        except Exception as error:
            sent.set_exception(error)
            sent.exception()
        else:
            sent.set_result(None)
