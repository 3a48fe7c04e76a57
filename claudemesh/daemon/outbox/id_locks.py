"""Locks by the id of a send: one task at a time deals with an id, for as long as it holds the lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class IdLocks:
    """The ids that tasks deal with now. A lock exists from its first task to its last one."""

    def __init__(self) -> None:
        # The lock of each id, and the number of tasks that hold it or wait for it.
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def __contains__(self, client_message_id: str) -> bool:
        return client_message_id in self._locks

    @asynccontextmanager
    async def hold(self, client_message_id: str) -> AsyncGenerator[None]:
        """Hold the lock of an id."""
        lock, users = self._locks.get(client_message_id, (asyncio.Lock(), 0))
        self._locks[client_message_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[client_message_id]
            if users == 1:
                del self._locks[client_message_id]
            else:
                self._locks[client_message_id] = lock, users - 1
