from __future__ import annotations

import asyncio
import threading

import pytest

from claudemesh.runtime import aside
from tests.support.waiting import WAIT_S

HEAVY = aside.LIGHT_VALUES + 1


def test_weight_is_a_bound_on_the_values() -> None:
    """Each value but the first stands behind a comma or a bracket; short texts are not looked at."""
    many = "[" + "1," * 9999 + "1]"
    assert aside.weight_of(many) == aside.weight_of(many.encode()) == 10_000
    assert aside.weight_of("[" + "[]," * 9999 + "{}]") > 2 * 9999
    assert aside.weight_of("[1,2]") == 0
    assert aside.weight_of('{"body":"' + "x" * 100_000 + '"}') == 1


async def test_heavy_work_leaves_the_loop_its_thread() -> None:
    """Light work is done at once, heavy work elsewhere, and the loop goes on meanwhile."""
    assert await aside.run(0, threading.get_ident) == threading.get_ident()
    assert await aside.run(HEAVY, threading.get_ident) != threading.get_ident()
    gate = threading.Event()
    waiting = asyncio.ensure_future(aside.run(HEAVY, gate.wait, 30))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    assert await waiting is True


@pytest.mark.parametrize("weight", [0, HEAVY])
async def test_errors_come_to_who_asked(weight: int) -> None:
    """An exception is raised where the result would be."""
    with pytest.raises(ValueError, match="invalid literal"):
        await aside.run(weight, int, "x")


async def test_a_batch_lets_others_run() -> None:
    """After a slice is used up, ready tasks run before the next piece."""
    slices = aside.Slices()
    await slices.rest()
    ran: list[str] = []
    asyncio.get_running_loop().call_soon(ran.append, "other")
    await slices.rest()
    assert ran == []
    ends = threading.Event()
    ends.wait(2 * aside.SLICE_S)
    await slices.rest()
    assert ran == ["other"]


async def test_items_that_are_shared_are_done_on_both_threads_and_come_back_in_order() -> None:
    """Neither thread gets past its item before the other one has taken one too."""
    both = threading.Barrier(2, timeout=WAIT_S)

    def work(item: int) -> tuple[int, int]:
        both.wait()
        return item, threading.get_ident()

    done = await aside.share(work, range(8), cores=2)
    assert [item for item, _ in done] == list(range(8))
    assert len({thread for _, thread in done}) == 2


@pytest.mark.parametrize(("cores", "count"), [(2, 1), (2, 3), (1, 100)])
async def test_few_items_and_those_of_one_core_stay_on_the_loop(cores: int, count: int) -> None:
    """Waking the other thread would cost more than it saves."""
    done = await aside.share(lambda _: threading.get_ident(), range(count), cores=cores)
    assert done == [threading.get_ident()] * count


async def test_what_a_busy_worker_thread_does_not_begin_is_done_by_the_loop() -> None:
    """Shared items do not wait for a long computation."""
    gate = threading.Event()
    long = asyncio.ensure_future(aside.run(HEAVY, gate.wait, 30))
    await asyncio.sleep(0)
    assert await aside.share(str, range(8), cores=2) == list("01234567")
    assert not long.done()
    gate.set()
    assert await long is True


@pytest.mark.parametrize("wrong", range(8))
async def test_an_error_of_a_shared_item_comes_to_the_caller(wrong: int) -> None:
    """It does not matter which thread met it."""
    items = ["1"] * 8
    items[wrong] = "x"
    with pytest.raises(ValueError, match="invalid literal"):
        await aside.share(int, items, cores=2)


async def test_shared_items_let_others_run() -> None:
    """Between two items the loop runs the ready tasks, when a slice is used up."""
    gate = threading.Event()
    busy = asyncio.ensure_future(aside.run(HEAVY, gate.wait, 30))
    await asyncio.sleep(0)
    done: list[int] = []
    ran: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: ran.append(len(done)))
    await aside.share(done.append, range(8), cores=2, slice_s=0.0)
    assert ran == [1]
    gate.set()
    assert await busy is True
