"""Decisions about the key of one topic: plain functions over what the broker has said and this host holds.

A member that needs a key in order to send does not depend on another one: it makes the next epoch when no
holder has wrapped the present key for it at once. A member that only receives waits for a wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from claudemesh.protocol.topic_keys import EpochStatement


class Step(Enum):
    """The next step towards a usable key."""

    USE = "use"
    MAKE = "make"
    REGISTER = "register"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic as the broker states it and as this host sees it.

    `current` is the number of the present epoch, 0 without one. `commitment` is its commitment, empty when no
    member has signed the epoch. `held` are the epochs of which this host holds the key, with their
    commitments, in ascending order.
    """

    current: int
    commitment: str
    rekey_wanted: bool
    held: Sequence[tuple[int, str]] = ()

    @property
    def has_key(self) -> bool:
        """Whether this host holds the key of the present epoch."""
        return bool(self.commitment) and (self.current, self.commitment) in self.held


def next_step(view: TopicView, *, is_to_send: bool, has_waited: bool) -> Step:
    """Return the next step.

    `is_to_send`: a send of this host waits for the key. `has_waited`: holders had their time to wrap it.
    """
    if lost_epochs(view):
        return Step.REGISTER
    if view.has_key:
        return Step.MAKE if view.rekey_wanted else Step.USE
    if is_to_send and (has_waited or not view.current):
        return Step.MAKE
    return Step.WAIT


def lost_epochs(view: TopicView) -> Sequence[int]:
    """Return the held epochs behind the present one: the broker has lost them with a restore.

    They are registered again only if they follow the present epoch without a gap.
    """
    later = [key_epoch for key_epoch, _ in view.held if key_epoch > view.current]
    if view.current and not view.has_key:
        return ()
    return later if later == list(range(view.current + 1, view.current + 1 + len(later))) else ()


def is_successor(statement: EpochStatement, previous_commitment: str) -> bool:
    """Tell whether the maker of an epoch has named this commitment as the one before it."""
    return statement.previous_commitment == previous_commitment
