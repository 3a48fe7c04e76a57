"""The clone policy: what becomes of a connection whose member is connected already."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """Verdict on a connection whose member is connected already."""

    ADMIT = "admitted"
    REPLACE = "older_replaced"
    REFUSE = "newer_refused"


def judge(policy: str, *, others: int, limit: int) -> Verdict:
    """Decide by the mesh's `clone_concurrency_policy`, given how many other instances are connected.

    Under allow_concurrent the one beyond `limit` is refused. An unknown policy counts as prefer_newest.
    """
    if others == 0:
        return Verdict.ADMIT
    if policy == "prefer_oldest":
        return Verdict.REFUSE
    if policy == "allow_concurrent":
        return Verdict.ADMIT if others < limit else Verdict.REFUSE
    return Verdict.REPLACE


def is_clone_suspected(known_host: bytes | None, told_host: bytes | None) -> bool:
    """Return whether a member shows up on another host than the one it was last seen on."""
    return known_host is not None and told_host is not None and known_host != told_host
