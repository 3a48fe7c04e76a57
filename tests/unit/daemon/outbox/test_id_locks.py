"""Locks by the id of a send."""

from __future__ import annotations

import asyncio

from claudemesh.daemon.outbox.id_locks import IdLocks


async def test_one_task_at_a_time_holds_an_id_and_the_last_one_removes_it() -> None:
    """Also one that begins while another one waits behind the first."""
    locks, inside, most = IdLocks(), 0, 0

    async def use() -> None:
        nonlocal inside, most
        async with locks.hold("id"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    tasks = [asyncio.ensure_future(use()) for _ in range(3)]
    await tasks[0]
    assert "id" in locks
    await asyncio.gather(*tasks, use(), use())
    assert most == 1
    assert "id" not in locks
