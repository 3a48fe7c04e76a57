"""Group commit: items that arrive during one commit share the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence, Sized
from typing import Generic, TypeVar

from claudemesh.runtime.errors import StorageBroken, StorageUnavailable
from claudemesh.runtime.services import TaskOwner

T = TypeVar("T")
R = TypeVar("R")


class Overloaded(Exception):
    """The batcher is full. Nothing was done with the item."""


class Batcher(Generic[T, R]):
    """Batches items, so that they share a commit.

    No timer: a lone item is committed at once. Items of one owner keep their order, and the owners take
    turns, so that an item waits for few items of each other owner. Without `owner` there is one owner.
    A batch that fails as a whole is retried one by one, so that only the failing item gets the error.
    `StorageUnavailable` and `StorageBroken` fail the whole batch, because every item would fail alike.
    While `max_pending` items wait, one more of an owner that has its share of them raises `Overloaded`. A
    batch has at most `max_batch` items, and ends with the item that brings it to `max_weight`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int = 256,
        max_pending: int = 8192,
        weigh: Callable[[T], int] | None = None,
        max_weight: int = 0,
        owner: Callable[[T], Hashable] | None = None,
    ) -> None:
        self._commit = commit
        self._weigh = weigh
        self._max_weight = max_weight
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._owner = owner
        # The items of each owner, in the order of the owners' turns.
        self._queues: dict[Hashable, deque[tuple[T, asyncio.Future[R]]]] = {}
        self._depth = 0
        self._committing: list[tuple[T, asyncio.Future[R]]] = []
        self._tasks = TaskOwner()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """Return the number of items whose commit has not begun."""
        return self._depth

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item. The future gets its result after the commit.

        Cancelling the future does not undo the item, which may be part of a commit already.
        """
        key = None if self._owner is None else self._owner(item)
        queue = self._queues.get(key)
        if self._closed or (self._depth >= self._max_pending and self._has_its_share(queue)):
            raise Overloaded
        loop = self._loop
        if loop is None:
            # Kept while it drains, because `get_running_loop` makes a system call.
            loop = self._loop = asyncio.get_running_loop()
            self._tasks.start(self._drain(), "batcher")
        future: asyncio.Future[R] = loop.create_future()
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append((item, future))
        self._depth += 1
        return future

    async def settled(self, owner: Hashable) -> None:
        """Return when everything that an owner has submitted before is committed, or has failed."""
        queue = self._queues.get(owner)
        before = [queue[-1][1]] if queue else [future for _, future in self._committing]
        if before:
            await asyncio.wait(before)

    async def close(self) -> None:
        """Refuse further items, and return when all waiting items are committed."""
        self._closed = True
        await self._tasks.join()

    async def _drain(self) -> None:
        try:
            while self._depth:
                batch = self._committing = self._next_batch()
                await self._commit_batch(batch)
        finally:
            self._loop = None
            self._committing = []

    def _has_its_share(self, queue: Sized | None) -> bool:
        return len(queue or ()) >= self._max_pending // max(1, len(self._queues))

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        queues, weigh, weight = self._queues, self._weigh, 0
        while queues and len(batch) < self._max_batch and (weigh is None or weight < self._max_weight):
            owner = next(iter(queues))
            queue = queues[owner]
            entry = queue.popleft()
            batch.append(entry)
            if weigh is not None:
                weight += weigh(entry[0])
            if not queue:
                del queues[owner]
            elif len(queues) > 1:
                # The next turn is another owner's.
                queues[owner] = queues.pop(owner)
        self._depth -= len(batch)
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
