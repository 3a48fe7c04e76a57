from __future__ import annotations

import asyncio

import pytest

from claudemesh.runtime.wake import Wake


async def test_a_task_waits_until_it_is_woken() -> None:
    """A call that came before is not lost, and one that is cleared does not count."""
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    wake.set()
    wake.set()
    await waiting
    await wake.wait()
    wake.clear()
    again = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    assert not again.done()
    wake.set()
    # The call was made: clearing it does not take it back from the task.
    wake.clear()
    await again


async def test_a_cancelled_wait_leaves_the_place_to_another_task() -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    wake.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    wake.clear()
    other = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    wake.set()
    await other


async def test_a_second_task_may_not_wait() -> None:
    """It would wait for ever, and so it is told."""
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Two tasks"):
        await wake.wait()
    wake.set()
    await waiting
