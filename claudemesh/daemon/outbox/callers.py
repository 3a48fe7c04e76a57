"""Callers that wait for the broker's result of their send."""

from __future__ import annotations

import asyncio


class WaitingCallers:
    """The futures of waiting callers, by client_message_id. One send may have several callers."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def add(self, client_message_id: str) -> asyncio.Future[None]:
        """Return a future that ends when the send is done or dead, or when the daemon stops."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client_message_id, []).append(future)
        return future

    def remove(self, client_message_id: str, future: asyncio.Future[None]) -> None:
        """Remove the future of a caller that no longer waits."""
        waiting = self._waiting.get(client_message_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(client_message_id, None)

    def release(self, client_message_id: str) -> None:
        """End the wait of a send's callers, when its row is done or dead on disk."""
        for future in self._waiting.pop(client_message_id, ()):
            if not future.done():
                future.set_result(None)

    def release_all(self) -> None:
        """End every wait: each caller gets the present state of its row."""
        for client_message_id in list(self._waiting):
            self.release(client_message_id)
