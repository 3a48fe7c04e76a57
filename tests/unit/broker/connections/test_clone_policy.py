"""The clone policy as a table of decisions."""

from __future__ import annotations

import pytest

from claudemesh.broker.connections.clone_policy import CloneVerdict, is_clone_suspected, judge


@pytest.mark.parametrize("policy", ["prefer_newest", "prefer_oldest", "allow_concurrent", "unknown"])
def test_a_lone_connection_is_admitted_under_every_policy(policy: str) -> None:
    """No policy concerns a member that is not connected yet."""
    assert judge(policy, others=0, limit=16) is CloneVerdict.ADMIT


@pytest.mark.parametrize(
    ("policy", "others", "verdict"),
    [
        ("prefer_newest", 1, CloneVerdict.REPLACE),
        ("prefer_oldest", 1, CloneVerdict.REFUSE),
        ("allow_concurrent", 1, CloneVerdict.ADMIT),
        ("allow_concurrent", 15, CloneVerdict.ADMIT),
        ("allow_concurrent", 16, CloneVerdict.REFUSE),
        ("unknown", 1, CloneVerdict.REPLACE),
    ],
)
def test_the_policy_decides_about_a_second_connection(
    policy: str, others: int, verdict: CloneVerdict
) -> None:
    """prefer_newest replaces, prefer_oldest refuses, allow_concurrent keeps both up to a bound."""
    assert judge(policy, others=others, limit=16) is verdict


def test_a_clone_is_suspected_only_when_two_known_hosts_differ() -> None:
    """A host that is not told says nothing."""
    assert is_clone_suspected(b"a", b"b")
    assert not is_clone_suspected(b"a", b"a")
    assert not is_clone_suspected(None, b"a")
    assert not is_clone_suspected(b"a", None)
