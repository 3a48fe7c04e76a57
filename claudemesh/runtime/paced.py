"""Paced changes: at most one action in a time, and changes that come in between share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from claudemesh.runtime.services import TaskOwner


class Paced:
    """Acts on changes of named values. Of two changes of one value that share an action the last one wins."""

    def __init__(
        self, act: Callable[[Mapping[str, Any]], Awaitable[object]], tasks: TaskOwner, every_s: float
    ) -> None:
        self._act = act
        self._tasks = tasks
        self._every_s = every_s
        self._waiting: dict[str, Any] = {}
        self._done: asyncio.Future[None] | None = None
        self._free = asyncio.Event()
        self._free.set()

    @property
    def is_idle(self) -> bool:
        """Whether no change waits, and the next one is acted on at once."""
        return self._done is None and self._free.is_set()

    async def set(self, given: Mapping[str, Any]) -> None:
        """Return when the change, or one that replaces it, was acted on. Raise the action's exception."""
        self._waiting.update(given)
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
            self._tasks.start(self._run(), "paced")
        await asyncio.shield(self._done)

    async def _run(self) -> None:
        await self._free.wait()
        given, self._waiting = self._waiting, {}
        done, self._done = self._done, None
        self._free.clear()
        asyncio.get_running_loop().call_later(self._every_s, self._free.set)
        assert done is not None
        try:
            await self._act(given)
        except Exception as error:
            done.set_exception(error)
            done.exception()
        else:
            done.set_result(None)
