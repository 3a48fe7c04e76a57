"""Tasks that must not end: run again after any exception, and reported while they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.services import TaskOwner, repeat, supervise
from tests.support.waiting import WAIT_S

_AT_ONCE = Backoff(initial_s=0, cap_s=0)


class Watcher:
    """Records its calls."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def failed(self, operation: str, error: BaseException) -> None:
        self.heard.append(f"{operation}: {error!r}")

    def worked(self, operation: str) -> None:
        self.heard.append(operation)


async def test_a_loop_outlives_every_exception_and_its_own_end() -> None:
    """Unexpected errors included; each is reported, and so is the work in between."""
    watcher, owner, over = Watcher(), TaskOwner(), asyncio.Event()
    lives = iter([KeyError("a"), None, OSError("b")])

    async def run(worked: Callable[[], None]) -> None:
        worked()
        try:
            ending = next(lives)
        except StopIteration:
            over.set()
            await asyncio.Event().wait()
        if ending is not None:
            raise ending

    owner.start(supervise(run, "loop", _AT_ONCE, watcher), "loop")
    async with asyncio.timeout(WAIT_S):
        await over.wait()
    await owner.stop()
    assert watcher.heard == ["loop", "loop: KeyError('a')", "loop", "loop", "loop: OSError('b')", "loop"]


async def test_work_that_is_repeated_goes_on_after_it_failed() -> None:
    """A failed turn is followed by another, by the backoff and not by the interval."""
    watcher, owner, over = Watcher(), TaskOwner(), asyncio.Event()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise RuntimeError("the first")
        over.set()
        await asyncio.Event().wait()

    owner.start(repeat(turn, 0.001, "work", _AT_ONCE, watcher), "work")
    async with asyncio.timeout(WAIT_S):
        await over.wait()
    await owner.stop()
    assert watcher.heard == ["work: RuntimeError('the first')"]


async def test_a_supervised_task_still_ends_with_its_owner() -> None:
    """Cancellation is no failure."""
    watcher, owner = Watcher(), TaskOwner()
    task = owner.start(repeat(asyncio.Event().wait, 0, "work", _AT_ONCE, watcher), "work")
    await asyncio.sleep(0)
    await owner.stop()
    assert task.cancelled()
    assert watcher.heard == []
