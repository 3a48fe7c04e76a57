"""When a database may be older than it was a moment ago."""

from __future__ import annotations

import pytest

from claudemesh.broker.cluster.failover import may_have_gone_back
from claudemesh.broker.store.types import Life


@pytest.mark.parametrize(
    ("before", "accepted", "now", "suspected"),
    [
        (None, 0, Life("a", 5), False),
        (Life("a", 5), 0, Life("a", 5), False),
        (Life("a", 5), 9, Life("a", 9), False),
        (Life("a", 5), 0, Life("a", 4), True),
        (Life("a", 5), 9, Life("a", 8), True),
        (Life("a", 5), 0, Life("b", 9), True),
    ],
)
def test_a_server_that_started_anew_or_counts_lower_is_suspected(
    before: Life | None, accepted: int, now: Life, suspected: bool
) -> None:
    """The first look has nothing to compare with."""
    assert may_have_gone_back(before, now, accepted) is suspected
