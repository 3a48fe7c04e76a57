from __future__ import annotations

import asyncio
import threading

import pytest

from claudemesh.runtime import aside

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
    """After a slice is used up, whoever is ready runs before the next piece."""
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
