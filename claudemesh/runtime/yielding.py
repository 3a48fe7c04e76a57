"""Threads that give way: a thread of ordinary priority that wakes beside them runs at once.

They encrypt, hash and write files, while the event loop and the threads of databases have messages to pass.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# It leaves a third of the weight of an ordinary thread, so that a busy host still gets the work done.
_NICER: Final = 5
_THREADS: Final = 4

_executor: ThreadPoolExecutor | None = None


def give_way() -> None:
    """Lower the priority of this thread below that of the process. Only Linux has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            nice = min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + _NICER)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


async def run(work: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
    """Call a function that blocks, on a thread that gives way, and return its result."""
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(_THREADS, "yielding", give_way)
    return await asyncio.wrap_future(_executor.submit(work, *values, **named))
