"""Queue of sends that wait for the next commit, each with the future of its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.types import Submission
from claudemesh.runtime.batching import Overloaded

MAX_BATCH = 256
MAX_WAITING = 8192


class WaitingSend(NamedTuple):
    """A send and the future of its answer. The caller may have cancelled it."""

    submission: Submission
    answer: asyncio.Future[Answer]


class SubmissionQueue:
    """Sends in the order of their arrival; `Overloaded` when 8192 wait already."""

    def __init__(self) -> None:
        self._waiting: deque[WaitingSend] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, submission: Submission) -> asyncio.Future[Answer]:
        """Queue a send, and return the future of its answer."""
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(WaitingSend(submission, future))
        return future

    def take(self) -> list[WaitingSend]:
        """Return the sends of the next commit."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]

    def fail(self, error: BaseException) -> None:
        """Give every send this error."""
        fail(list(self._waiting), error)
        self._waiting.clear()


def answer(batch: Sequence[WaitingSend], answers: Sequence[Answer]) -> None:
    """Answer the sends of a commit."""
    for waiting, found in zip(batch, answers, strict=True):
        if not waiting.answer.done():
            waiting.answer.set_result(found)


def fail(batch: Sequence[WaitingSend], error: BaseException) -> None:
    """Give the sends of a commit this error."""
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
