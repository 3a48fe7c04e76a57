"""Counts of the last day: spans without gaps, and what the stores count in them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.api.activity import BUCKET_S, BUCKETS, spans_until
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Submission
from claudemesh.protocol.ids import UlidFactory, first_ulid, is_ulid, ulid_time_ms
from tests.support.clock import ManualClock
from tests.unit.daemon.inbox.test_retention import row

NOW = 1_780_000_000_000


@given(st.integers(0, 1 << 45))
def test_the_spans_are_a_day_without_gaps_that_ends_with_the_running_quarter(now_ms: int) -> None:
    spans = spans_until(now_ms)
    assert len(spans) == BUCKETS and spans[-1][0] <= now_ms < spans[-1][1]
    assert all(end - start == BUCKET_S * 1000 for start, end in spans)
    assert all(one[1] == following[0] for one, following in pairwise(spans))
    assert all(start % (BUCKET_S * 1000) == 0 for start, _ in spans)


@given(st.integers(1, (1 << 48) - 1))
def test_the_first_ulid_of_a_time_parts_the_ids_before_from_those_behind(time_ms: int) -> None:
    first = first_ulid(time_ms)
    assert is_ulid(first) and ulid_time_ms(first) == time_ms
    before, behind = (
        UlidFactory(lambda at=at: at, lambda n: b"\xff" * n).new() for at in (time_ms - 1, time_ms)
    )
    assert before < first <= behind


async def test_sends_are_counted_by_the_time_of_their_ids_up_to_a_limit(tmp_path: Path) -> None:
    store = await OutboxStore.open(tmp_path / "outbox.db")
    try:
        for at, number in ((NOW - 1, 1), (NOW, 3), (NOW + 10, 2)):
            factory = UlidFactory(lambda at=at: at, lambda n: b"\x01" * n)
            for each in range(number):
                new = NewRow(factory.new(), b"{}", 1, at)
                await store.turn([Submission(f"{at}-{each}", b"f" * 32, new)], [], Now(at, at, at), 0)
        spans = [(NOW - 5, NOW), (NOW, NOW + 10), (NOW + 10, NOW + 20), (NOW + 20, NOW + 30)]
        assert await store.activity(spans, 100) == [1, 3, 2, 0]
        assert await store.activity(spans, 2) == [1, 2, 2, 0]
    finally:
        await store.close()


async def test_messages_are_counted_by_the_time_of_their_arrival(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await InboxStore.open(tmp_path / "inbox.db", clock)
    try:
        start = clock.wall_ms()
        for number in range(3):
            await store.insert([row(number, clock)])
        spans = [(start - 10, start), (start, start + 60_000), (start + 60_000, start + 120_000)]
        assert await store.activity(spans, 100) == [0, 3, 0]
    finally:
        await store.close()
