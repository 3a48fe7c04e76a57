"""Task ownership: every task has an owner that stops it, waits for it, and gets its exception.

A task that must not end is supervised: `supervise` and `repeat` run it again after any exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import local_cause

log = get_logger("services")


class Watcher(Protocol):
    """Receiver of the outcomes of supervised tasks. It logs the exceptions."""

    def failed(self, operation: str, error: BaseException) -> None:
        """Note that a task failed; it is tried again."""
        ...

    def worked(self, operation: str) -> None:
        """Note that a task did its work."""
        ...


async def supervise(
    run: Callable[[Callable[[], None]], Awaitable[None]], name: str, backoff: Backoff, watcher: Watcher
) -> None:
    """Run a task for ever: again after any exception or end, with growing delays.

    `run` gets a function to call when it has done its work, which resets the delays.
    """
    failures = 0

    def worked() -> None:
        nonlocal failures
        failures = 0
        watcher.worked(name)

    while True:
        try:
            await run(worked)
        except Exception as error:
            watcher.failed(name, error)
        failures += 1
        await asyncio.sleep(backoff.delay_s(failures))


async def repeat(
    turn: Callable[[], Awaitable[object]], every_s: float, name: str, backoff: Backoff, watcher: Watcher
) -> None:
    """Call a function every `every_s` seconds for ever, first after that time.

    After an exception the backoff decides when it is done again.
    """

    async def run(worked: Callable[[], None]) -> None:
        while True:
            await turn()
            worked()
            await asyncio.sleep(every_s)

    await asyncio.sleep(every_s)
    await supervise(run, name, backoff, watcher)


OnCrash: TypeAlias = Callable[[str, BaseException], None]


class TaskOwner:
    """Starts tasks, keeps references to them, and cancels them when it is stopped.

    `on_crash` gets an exception that no code awaits. Without it the exception is logged.
    """

    def __init__(self, on_crash: OnCrash | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_crash = on_crash

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this owner."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Return when every task has ended by itself."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Cancel the running tasks and wait for their end."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        # The error of a disk or a limit names its cause, so a traceback does not help.
        trace = None if isinstance(error, StorageError) or local_cause(error) is not None else error
        log.error("task_crashed", task=task.get_name(), error=repr(error), exc_info=trace)
        if self._on_crash is not None:
            self._on_crash(task.get_name(), error)
