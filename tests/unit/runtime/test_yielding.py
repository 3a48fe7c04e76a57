"""Threads that give way to those that pass messages."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from claudemesh.runtime import yielding
from claudemesh.runtime.beside import Beside

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def niceness() -> int:
    """The niceness of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_work_on_files_gives_way_to_the_other_threads_of_its_process() -> None:
    found: list[int] = []
    own = niceness()
    with Beside() as outer:

        def nested() -> None:
            found.append(niceness())
            # A thread inherits the priority of the one that starts it, and is not lowered twice.
            with Beside() as inner:
                inner.do(lambda: found.append(niceness()))
                inner.wait()

        outer.do(nested)
        outer.wait()
    assert found == [min(19, own + 5)] * 2
    assert niceness() == own


async def test_a_blocking_call_gives_way_and_its_result_and_failure_come_back() -> None:
    own = niceness()
    assert await yielding.run(niceness) == min(19, own + 5)
    assert await yielding.run(int, "12", base=3) == 5
    with pytest.raises(ValueError, match="invalid literal"):
        await yielding.run(int, "x")
