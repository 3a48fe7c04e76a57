"""Wake-up call for one waiting task."""

from __future__ import annotations

import asyncio


class Wake:
    """An event for which one task waits. An `asyncio.Event` holds a queue of tasks, which takes 760 bytes."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the task that waits, or let the next wait return at once."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Let the next wait last until the next `set`."""
        self._is_set = False

    async def wait(self) -> None:
        """Return when it is set. `RuntimeError`: another task waits already."""
        if self._is_set:
            return
        if self._waiter is not None:
            raise RuntimeError("Two tasks wait for a wake-up call of one.")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
