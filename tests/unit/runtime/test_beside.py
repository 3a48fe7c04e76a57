"""Work on a thread beside another one."""

from __future__ import annotations

import threading

import pytest

from claudemesh.runtime.beside import Beside


def test_work_is_done_in_its_order_on_one_other_thread() -> None:
    done: list[int] = []
    threads = set()

    def work(number: int) -> None:
        threads.add(threading.get_ident())
        done.append(number)

    with Beside() as beside:
        for number in range(100):
            beside.do(lambda number=number: work(number))  # type: ignore[misc]
        beside.wait()
        assert done == list(range(100))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_a_failure_is_raised_and_no_work_behind_it_is_done() -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError(28, "full")

    with Beside() as beside:
        beside.do(lambda: done.append("before"))
        beside.do(fail)
        beside.do(lambda: done.append("behind"))
        with pytest.raises(OSError, match="full"):
            beside.wait()
        beside.wait()
    assert done == ["before"]


def test_the_block_ends_when_the_work_is_done() -> None:
    """Also behind a failure of the caller: the files of the work may be closed then."""
    done: list[int] = []
    with pytest.raises(KeyError), Beside() as beside:
        beside.do(lambda: done.append(1))
        raise KeyError
    assert done == [1]
