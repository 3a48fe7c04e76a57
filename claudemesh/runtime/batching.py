"""Group commit: items that arrive during one commit share the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from claudemesh.runtime.errors import StorageBroken, StorageUnavailable
from claudemesh.runtime.services import TaskOwner

T = TypeVar("T")
R = TypeVar("R")


class Overloaded(Exception):
    """The batcher is full. Nothing was done with the item."""


class Batcher(Generic[T, R]):
    """Batches items, so that they share a commit.

    No timer: a lone item is committed at once. Items keep their order. A batch that fails as a whole is
    retried one by one, so that only the failing item gets the error. `StorageUnavailable` and `StorageBroken`
    fail the whole batch, because every item would fail in the same way.
    At most `max_pending` items wait; one more raises `Overloaded`. A batch has at most `max_batch` items, and
    ends with the item that brings it to `max_weight`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int = 256,
        max_pending: int = 8192,
        weigh: Callable[[T], int] | None = None,
        max_weight: int = 0,
    ) -> None:
        self._commit = commit
        self._weigh = weigh
        self._max_weight = max_weight
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._pending: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._tasks = TaskOwner()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """Return the number of items whose commit has not begun."""
        return len(self._pending)

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item. The future gets its result after the commit.

        Cancelling the future does not undo the item, which may be part of a commit already.
        """
        if self._closed or len(self._pending) >= self._max_pending:
            raise Overloaded
        loop = self._loop
        if loop is None:
            # Kept while it drains, because `get_running_loop` makes a system call.
            loop = self._loop = asyncio.get_running_loop()
            self._tasks.start(self._drain(), "batcher")
        future: asyncio.Future[R] = loop.create_future()
        self._pending.append((item, future))
        return future

    async def close(self) -> None:
        """Refuse further items, and return when all waiting items are committed."""
        self._closed = True
        await self._tasks.join()

    async def _drain(self) -> None:
        try:
            while self._pending:
                await self._commit_batch(self._next_batch())
        finally:
            self._loop = None

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        count = min(len(self._pending), self._max_batch)
        if self._weigh is None:
            return [self._pending.popleft() for _ in range(count)]
        batch: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while len(batch) < count and (weight < self._max_weight or not batch):
            entry = self._pending.popleft()
            weight += self._weigh(entry[0])
            batch.append(entry)
        return batch

    async def _commit_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._commit([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"a commit of {len(batch)} items returned {len(results)} results")
        except (StorageUnavailable, StorageBroken) as error:
            self._fail(batch, error)
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch, error)
                return
            for entry in batch:
                await self._commit_batch([entry])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    @staticmethod
    def _fail(batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
