"""Free memory that the C library keeps after a burst, and its way back to the system.

glibc keeps freed blocks between blocks that are still in use, for as long as the process runs. `malloc_trim`
gives the pages of all of them back. Other C libraries have no such function, and nothing happens there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

# Growth that is worth a pass over the heap, which takes milliseconds.
_GROWN_KIB = 8 << 10
_STATUS = Path("/proc/self/status")


def resident_kib() -> int | None:
    """Return the resident memory of this process in KiB; None: the system has no `/proc`."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except OSError:
        return None
    return None


@cache
def _malloc_trim() -> Callable[[int], object] | None:
    if sys.platform != "linux":
        return None
    # Imported here: commands have no use for it.
    import ctypes

    trim: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


class SpareMemory:
    """The growth of this process since its free memory was given back."""

    def __init__(self) -> None:
        self._least_kib = resident_kib()

    def give_back(self) -> bool:
        """Give free memory back when the process has grown by 8 MiB. Return whether that was done."""
        now_kib, trim = resident_kib(), _malloc_trim()
        if now_kib is None or self._least_kib is None or trim is None:
            return False
        if now_kib - self._least_kib < _GROWN_KIB:
            self._least_kib = min(self._least_kib, now_kib)
            return False
        trim(0)
        self._least_kib = resident_kib()
        return True
