"""So many at once, so many a second after that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.runtime.rate_limit import TokenBucket


def test_a_burst_then_the_rate() -> None:
    """The wait that is told is the wait that helps."""
    bucket = TokenBucket(per_s=100, burst=3)
    assert [bucket.take(10.0) for _ in range(3)] == [0, 0, 0]
    wait = bucket.take(10.0)
    assert 0 < wait <= 0.01
    assert bucket.take(10.0 + wait + 1e-9) == 0
    assert bucket.take(10.0 + wait + 1e-9) > 0


def test_what_was_not_used_is_kept_up_to_the_burst() -> None:
    """An idle hour does not buy more than a burst."""
    bucket = TokenBucket(per_s=100, burst=3)
    bucket.take(0.0)
    assert [bucket.take(3600.0) == 0 for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 0.5), max_size=300))
def test_never_more_than_burst_and_rate_together(pauses: list[float]) -> None:
    """With any pauses."""
    bucket, now, taken = TokenBucket(per_s=10, burst=5), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now) == 0
        assert taken <= 5 + 10 * now + 1e-6
