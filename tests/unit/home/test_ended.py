"""The end of a membership, as a host states it (docs/spec/lifecycle.md, Leaving and revoking)."""

from __future__ import annotations

import pytest

from claudemesh.home.ended import Ended


@pytest.mark.parametrize(
    ("by", "named"),
    [
        ("a" * 64, f"by the member with the key {'a' * 64}"),
        # A daemon that was away learns that it was revoked, and not by which member.
        (None, "by an owner, an admin or the operator of the broker"),
    ],
)
def test_a_revoked_host_blames_no_party_that_it_does_not_know(by: str | None, named: str) -> None:
    """The exit code is 77, and the remedy follows."""
    told = Ended("revoked", by).exit("demo")
    assert named in told.message
    assert (told.code, told.error) == (77, "revoked")
