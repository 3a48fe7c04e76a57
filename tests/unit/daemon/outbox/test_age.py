"""Maximum age of a row, computed from the broker's features (docs/spec/daemon.md, Drain)."""

from __future__ import annotations

import pytest

from claudemesh.daemon.outbox.age import MaxAgeError, max_age_hours
from claudemesh.protocol.features import Features
from tests.support.values import replace

SCOPED = Features(
    dedupe_mode="retention_scoped",
    dedupe_retention_days=30,
    tombstone_days=None,
    inline_bytes=262144,
    blob_bytes=262144,
    default_policy="prefer_newest",
    key_epochs=None,
    rotated_event=False,
    warnings=(),
)
PERMANENT = replace(SCOPED, dedupe_mode="permanent", dedupe_retention_days=None)


@pytest.mark.parametrize(("days", "hours"), [(7, 144), (30, 648), (365, 7884)])
def test_the_margin_is_a_day_or_a_tenth_of_the_window(days: int, hours: int) -> None:
    """7 days give 144 h, 30 give 648 h, 365 give 7884 h."""
    features = replace(SCOPED, dedupe_retention_days=days)
    assert max_age_hours(features, default=168, cap=720) == hours


def test_permanent_dedupe_uses_the_users_default_up_to_the_cap() -> None:
    """min(default, cap)."""
    assert max_age_hours(PERMANENT, default=168, cap=720) == 168
    assert max_age_hours(PERMANENT, default=1000, cap=720) == 720


def test_an_override_may_reach_to_a_day_before_the_window_ends() -> None:
    """Accepted iff N <= days * 24 - 24."""
    assert max_age_hours(SCOPED, default=168, cap=720, override=696) == 696
    with pytest.raises(MaxAgeError, match="696"):
        max_age_hours(SCOPED, default=168, cap=720, override=697)
