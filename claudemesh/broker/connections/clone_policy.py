"""The clone policy: decisions about a second connection of one member. No I/O."""

from __future__ import annotations

from enum import Enum


class CloneVerdict(Enum):
    """The decision about a new connection."""

    ADMIT = "admitted"
    REPLACE = "older_replaced"
    REFUSE = "newer_refused"


def judge(policy: str, *, others: int, limit: int) -> CloneVerdict:
    """Decide by the mesh's `clone_concurrency_policy` and the number of other connected instances.

    Under allow_concurrent a connection beyond `limit` is refused. An unknown policy counts as prefer_newest.
    """
    if others == 0:
        return CloneVerdict.ADMIT
    if policy == "prefer_oldest":
        return CloneVerdict.REFUSE
    if policy == "allow_concurrent":
        return CloneVerdict.ADMIT if others < limit else CloneVerdict.REFUSE
    return CloneVerdict.REPLACE


def is_clone_suspected(known_host: bytes | None, told_host: bytes | None) -> bool:
    """Return whether a member connects from another host than the one where it was last seen."""
    return known_host is not None and told_host is not None and known_host != told_host
