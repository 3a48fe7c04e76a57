"""The end of a membership, as a host states it (docs/spec/lifecycle.md, Leaving and revoking)."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.home.ended import Ended, load_ended, save_ended

KEY = "a" * 64


@pytest.mark.parametrize(
    ("ended", "named"),
    [
        (Ended("revoked", KEY, "alice", "owner"), f"by alice (owner, key {KEY}), whose statement"),
        # Written by a version that did not keep the name.
        (Ended("revoked", KEY), f"by the member with the key {KEY}"),
        (Ended("revoked"), "by an owner, an admin or the operator of the broker"),
    ],
)
def test_a_revoked_host_blames_no_party_that_it_does_not_know(ended: Ended, named: str) -> None:
    """The exit code is 77, and the remedy follows."""
    told = ended.exit("demo")
    assert named in told.message
    assert (told.code, told.error) == (77, "revoked")


def test_the_note_reads_back(tmp_path: Path) -> None:
    """With the member that has revoked this one, and without."""
    path = tmp_path / "ended.json"
    for ended in (Ended("revoked", KEY, "alice", "owner"), Ended("revoked"), Ended("left")):
        save_ended(path, ended)
        assert load_ended(path) == ended
