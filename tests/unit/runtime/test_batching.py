"""Group commit: order, isolation of a bad item, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.errors import StorageUnavailable


class Recorder:
    """A commit that can be held, and that refuses some items."""

    def __init__(self, poison: frozenset[int] = frozenset(), error: type[Exception] = ValueError) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._poison = poison
        self._error = error

    async def commit(self, items: Sequence[int]) -> Sequence[int]:
        await self.gate.wait()
        self.batches.append(list(items))
        if self._poison & set(items):
            raise self._error("poison")
        return [item * 10 for item in items]


async def test_a_lone_item_is_committed_at_once() -> None:
    """No timers: one item makes one batch."""
    recorder = Recorder()
    batcher = Batcher(recorder.commit)
    assert await batcher.submit(1) == 10
    assert recorder.batches == [[1]]


async def test_what_came_in_during_a_commit_shares_the_next() -> None:
    """Items that arrive while a commit runs go out together, in order."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.commit)
    first = batcher.submit(1)
    await asyncio.sleep(0)
    rest = [batcher.submit(number) for number in range(2, 6)]
    recorder.gate.set()
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40, 50]
    assert recorder.batches == [[1], [2, 3, 4, 5]]


async def test_one_bad_item_does_not_sink_its_neighbours() -> None:
    """A batch that fails as a whole is retried one by one; only the culprit sees its error."""
    batcher = Batcher(Recorder(frozenset({2})).commit)
    results = await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 3)), return_exceptions=True)
    assert [results[0], results[2]] == [10, 30]
    assert isinstance(results[1], ValueError)


async def test_an_unavailable_store_fails_the_batch_once() -> None:
    """Every item would meet the same fate, so nothing is retried one by one."""
    recorder = Recorder(frozenset({2}), StorageUnavailable)
    batcher = Batcher(recorder.commit)
    results = await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 3)), return_exceptions=True)
    assert all(isinstance(result, StorageUnavailable) for result in results)
    assert len(recorder.batches) == 1


async def test_more_than_max_pending_is_refused() -> None:
    """The queue is bounded, and says so at the bound."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.commit, max_pending=2)
    waiting = [batcher.submit(1), batcher.submit(2)]
    with pytest.raises(Overloaded):
        batcher.submit(3)
    recorder.gate.set()
    assert await asyncio.gather(*waiting) == [10, 20]


async def test_a_cancelled_caller_does_not_take_its_item_back() -> None:
    """A cancelled caller does not know the outcome; the item is committed."""
    recorder = Recorder()
    batcher = Batcher(recorder.commit)
    batcher.submit(1).cancel()
    assert await batcher.submit(2) == 20
    assert recorder.batches == [[1, 2]]


async def test_close_waits_for_what_was_taken() -> None:
    """After close everything taken is committed and nothing more is."""
    recorder = Recorder()
    batcher = Batcher(recorder.commit)
    future = batcher.submit(1)
    await batcher.close()
    assert future.result() == 10
    with pytest.raises(Overloaded):
        batcher.submit(2)


async def test_a_batch_ends_with_the_item_that_brings_it_to_its_weight() -> None:
    """Large items share a commit with few others, and one too large of its own goes alone."""
    recorder = Recorder()
    batcher = Batcher(recorder.commit, weigh=lambda item: item, max_weight=10)
    recorder.gate.clear()
    first = batcher.submit(1)
    await asyncio.sleep(0)
    rest = [batcher.submit(item) for item in (4, 4, 4, 4, 99, 1)]
    recorder.gate.set()
    assert await asyncio.gather(first, *rest) == [10, 40, 40, 40, 40, 990, 10]
    assert recorder.batches == [[1], [4, 4, 4], [4, 99], [1]]


async def test_owners_take_turns_and_each_keeps_its_order() -> None:
    """An owner with many items keeps no other one waiting for all of them."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.commit, max_batch=4, owner=lambda item: item // 1000)
    futures = [batcher.submit(number) for number in range(12)] + [batcher.submit(1000), batcher.submit(1001)]
    recorder.gate.set()
    await asyncio.gather(*futures)
    assert recorder.batches[0] == [0, 1000, 1, 1001]
    assert [item for batch in recorder.batches for item in batch if item < 1000] == list(range(12))


async def test_a_full_batcher_refuses_the_owner_that_has_its_share() -> None:
    """The first item of another owner is taken all the same."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.commit, max_pending=8, owner=lambda item: item // 1000)
    many = [batcher.submit(number) for number in range(8)]
    with pytest.raises(Overloaded):
        batcher.submit(8)
    other = batcher.submit(1000)
    recorder.gate.set()
    assert await other == 10_000
    await asyncio.gather(*many)


async def test_an_owner_is_settled_when_all_its_own_items_are() -> None:
    """Items of others that wait behind are not waited for; those in the running commit are."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.commit, max_batch=1, owner=lambda item: item // 1000)
    mine = [batcher.submit(0), batcher.submit(1)]
    await asyncio.sleep(0)
    settled = asyncio.ensure_future(batcher.settled(0))
    await asyncio.sleep(0)
    assert not settled.done()
    recorder.gate.set()
    await settled
    assert all(future.done() for future in mine)
