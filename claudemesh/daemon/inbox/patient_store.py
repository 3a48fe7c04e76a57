"""Storage of received messages, with retries while the disk is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageError, StorageUnavailable


class PatientStore:
    """Stores rows, and retries while the disk is full: unacknowledged messages are safe at the broker."""

    def __init__(
        self,
        store: InboxStore,
        check_room: Callable[[int], None] = lambda size: None,
        on_storage: Callable[[StorageError | None], None] = lambda error: None,
    ) -> None:
        """`check_room` gets the size of a batch in bytes, and raises `StorageFull` when the budget has no
        room for it. `on_storage` gets the error when messages cannot be stored, and None when they were
        stored.
        """
        self._store = store
        self._check_room = check_room
        self._on_storage = on_storage
        self._backoff = Backoff(initial_s=0.2, cap_s=5)
        self._ending = asyncio.Event()

    async def insert(self, rows: Sequence[InboxRow]) -> Sequence[int | None]:
        """Store messages, and return the seq of each: None when it was stored before.

        Raise `StorageUnavailable` after `give_up`.
        """
        failures, size = 0, sum(len(row.body or row.sealed or "") for row in rows)
        while rows:
            try:
                self._check_room(size)
                seqs = await self._store.insert(rows)
            except StorageUnavailable as error:
                if self._ending.is_set():
                    raise
                failures += 1
                self._on_storage(error)
                try:
                    async with asyncio.timeout(self._backoff.delay_s(failures)):
                        await self._ending.wait()
                except TimeoutError:
                    continue
                raise
            else:
                self._on_storage(None)
                return seqs
        return []

    def give_up(self) -> None:
        """End the retries. A message that is not stored yet stays at the broker."""
        self._ending.set()
