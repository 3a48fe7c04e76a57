"""Free memory goes back to the system after a burst (docs/performance.md, Techniques)."""

from __future__ import annotations

import ctypes
import sys

import pytest

from claudemesh.runtime.allocator import SpareMemory, resident_kib

_BLOCK = 60_000
_BLOCKS = 1_000

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="this C library does not keep free memory in this way",
)


@glibc
def test_memory_of_a_burst_goes_back_also_below_blocks_in_use() -> None:
    """A block that stays above the free ones would otherwise hold all of them."""
    # The blocks would fill memory that earlier tests have freed, and the process would not grow.
    ctypes.CDLL(None).malloc_trim(0)
    spare = SpareMemory()
    blocks = [b"x" * (_BLOCK + number % 7) for number in range(_BLOCKS)]
    in_use = blocks[::50]
    blocks.clear()
    before = resident_kib()
    assert spare.give_back()
    after = resident_kib()
    assert before is not None and after is not None
    assert before - after > _BLOCKS * _BLOCK // 1024 // 2
    assert len(in_use) == _BLOCKS // 50


@glibc
def test_a_process_that_has_not_grown_is_left_alone() -> None:
    """A pass over the heap takes time, and would find nothing."""
    spare = SpareMemory()
    assert not spare.give_back()
