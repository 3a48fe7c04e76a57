"""The event loop of a process: uvloop, started after a check that it can run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from claudemesh.runtime.children import reaping_if_first
from claudemesh.runtime.oserrors import require_descriptors

T = TypeVar("T")

# Descriptors of the loop itself (epoll, pipes of signals and threads), and some for files opened next.
# Without the first ones libuv aborts the process.
_DESCRIPTORS = 16


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end and return its result. Process 1 of a container reaps orphans.

    Raises `ExitWith` 75 (`too_many_open_files`), before anything begins, when too few files may be opened.
    """
    require_descriptors(_DESCRIPTORS)

    async def reaping() -> T:
        with reaping_if_first():
            return await main()

    return uvloop.run(reaping())
