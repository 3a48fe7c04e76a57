"""Worker thread for long computations, so that they do not block the event loop.

The thread shares the interpreter with the loop and gives it back every half a millisecond. One thread is
enough, because a second one would only take turns with the first. Only computations outside of the
interpreter run at the same time as the loop; those of a batch are shared by both threads.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# JSON with fewer values, and bytes that are only copied, hashed or encrypted, stay on the loop.
LIGHT_VALUES: Final = 1024
_LIGHT_BYTES: Final = 8 << 10
# Counting in a longer one would take a millisecond and more.
_LONG_BYTES: Final = 1 << 20
# Waking the thread takes about half as long as verifying one signature.
_SHARED: Final = 4
_CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_SWITCH_S: Final = 0.0005
SLICE_S: Final = 0.004

_executor: ThreadPoolExecutor | None = None


def weight_of(raw: bytes | str) -> int:
    """Return an upper bound for the number of values in a JSON text; 0 for a text of at most 8 KiB.

    Commas and brackets inside of strings count too. A very long text is not looked at.
    """
    if len(raw) <= _LIGHT_BYTES:
        return 0
    if len(raw) > _LONG_BYTES:
        return len(raw)
    return values_in(raw)


def values_in(raw: bytes | str) -> int:
    """Return an upper bound for the number of values in a JSON text, however long it is."""
    if isinstance(raw, str):
        return raw.count(",") + raw.count("[") + raw.count("{")
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


async def run(weight: int, work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function and return its result: here when it is light, on the worker thread otherwise.

    The function must share no state with code that runs meanwhile. Its exceptions are raised here.
    """
    if weight <= LIGHT_VALUES:
        return work(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_thread(), lambda: _work(work, *args, **kwargs))


def _work(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    # Parsed JSON holds no cycles, and a collector pass over a hundred thousand lists stops the loop too.
    gc.disable()
    try:
        return work(*args, **kwargs)
    finally:
        gc.enable()
        sys.setswitchinterval(before)


def _thread() -> ThreadPoolExecutor:
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(1, "aside")
    return _executor


class Slices:
    """Time slices of a batch: the loop runs other tasks after every 4 ms of work."""

    __slots__ = ("_ends", "_slice_s")

    def __init__(self, slice_s: float = SLICE_S) -> None:
        self._slice_s = slice_s
        self._ends = time.monotonic() + slice_s

    async def rest(self) -> None:
        """Return at once while the slice lasts. After it, let the tasks that are ready run first."""
        if time.monotonic() >= self._ends:
            await asyncio.sleep(0)
            self._ends = time.monotonic() + self._slice_s


async def share(
    work: Callable[[T], R], items: Sequence[T], *, cores: int = _CORES, slice_s: float = SLICE_S
) -> list[R]:
    """Call a function for each item, here and on the worker thread at once; the results are in order.

    It is for functions that give the interpreter back while they compute, as libsodium's do. Each thread
    takes the next item when it is done with one. Few items stay on the loop, and all where there is one core.
    """
    if len(items) < _SHARED or cores < 2:
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    ahead, slices = deque(enumerate(items)), Slices(slice_s)
    helper = _thread().submit(_take_all, work, ahead, results)
    try:
        while _take(work, ahead, results):
            await slices.rest()
        # A thread that did not get to begin has nothing to do any more.
        if not helper.cancel():
            await asyncio.wrap_future(helper)
    finally:
        ahead.clear()
    return results


def _take(work: Callable[[T], R], ahead: deque[tuple[int, T]], results: list[R]) -> bool:
    """Do the next item. False: there is none."""
    try:
        index, item = ahead.popleft()
    except IndexError:
        return False
    results[index] = work(item)
    return True


def _take_all(work: Callable[[T], R], ahead: deque[tuple[int, T]], results: list[R]) -> None:
    while _take(work, ahead, results):
        pass
