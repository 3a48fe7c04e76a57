"""The event loop of a process: uvloop, started after a check that it can run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from claudemesh.runtime.oserrors import require_descriptors

T = TypeVar("T")

# Descriptors of the loop itself (epoll, pipes of signals and threads), and some for files opened next.
# Without the first ones libuv aborts the process.
_DESCRIPTORS = 16


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end and return its result.

    Raises `ExitWith` 75 (`too_many_open_files`), before anything begins, when too few files may be opened.
    """
    require_descriptors(_DESCRIPTORS)
    return uvloop.run(main())
