"""Pure work that takes long runs on a thread of its own, so that the event loop goes on meanwhile.

Python's parts of the work share the interpreter with the loop: the thread gives it back every half a
millisecond. One thread is enough, because a second one would only take turns with the first.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# JSON with fewer values, and bytes that are only copied, hashed or encrypted, are worth no change of thread.
LIGHT_VALUES: Final = 1024
_LIGHT_BYTES: Final = 8 << 10
_SWITCH_S: Final = 0.0005
SLICE_S: Final = 0.004

_executor: ThreadPoolExecutor | None = None


def weight_of(raw: bytes | str) -> int:
    """Return how many values a JSON text may hold at most; a short one counts as 0.

    Commas and brackets inside of strings count too.
    """
    if len(raw) <= _LIGHT_BYTES:
        return 0
    if isinstance(raw, str):
        return raw.count(",") + raw.count("[") + raw.count("{")
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


async def run(weight: int, work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what a function returns: called here when it is light, on the thread otherwise.

    It must be pure, as far as anything else runs meanwhile. Its exceptions are raised here.
    """
    if weight <= LIGHT_VALUES:
        return work(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_thread(), lambda: _work(work, *args, **kwargs))


def _work(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    # What JSON becomes holds no cycles, and a pass over a hundred thousand lists stops the loop as well.
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
    """Lets the loop go on between two pieces of a batch, after each few milliseconds of work."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = time.monotonic() + SLICE_S

    async def rest(self) -> None:
        """Return at once while the slice lasts; otherwise let everything else that is ready run first."""
        if time.monotonic() >= self._ends:
            await asyncio.sleep(0)
            self._ends = time.monotonic() + SLICE_S
