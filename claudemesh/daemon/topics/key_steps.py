"""Decisions about the key of one topic: plain functions over what the broker has said and this host holds.

A member that needs a key in order to send does not depend on another one: it makes the next epoch when no
holder has wrapped the present key for it at once. A member that only receives waits for a wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from msgspec import Struct, field

from claudemesh.protocol.topic_key_replies import MAX_EPOCHS_ASKED

# Numbers that the broker lets an epoch leave out.
MOST_LEFT_OUT: Final = 63


class HeldEpoch(NamedTuple):
    """An epoch of which this host holds the key."""

    key_epoch: int
    commitment: str
    previous_commitment: str = ""


class Wish(Struct):
    """The wanted keys of a topic: its present one, and those of some epochs."""

    is_to_send: bool = False
    has_waited: bool = False
    key_epochs: set[int] = field(default_factory=set)
    # Whether the members without a key are to be listed, so that this host can wrap it for them.
    lists_missing: bool = False
    # The epochs that the broker has refused.
    refused: set[int] = field(default_factory=set)
    # Whether a wrap did not open, so that other holders are to be asked.
    has_wrong_wrap: bool = False
    error: str | None = None
    # The last epoch that was asked for, when they are more than one call takes.
    asked_up_to: int = 0

    def next_asked(self) -> list[int]:
        """Return the epochs of the next call, the oldest first; each has its turn."""
        wanted = sorted(self.key_epochs)
        after = [one for one in wanted if one > self.asked_up_to] or wanted
        asked = after[:MAX_EPOCHS_ASKED]
        self.asked_up_to = asked[-1] if asked else 0
        return asked


class Step(Enum):
    """The next step towards a usable key."""

    USE = "use"
    MAKE = "make"
    REGISTER = "register"
    WAIT = "wait"


class TopicView(Struct, frozen=True):
    """A topic as the broker states it and as this host sees it.

    `current` is the number of the present epoch, 0 without one. `commitment` is its commitment, empty when no
    member has signed the epoch. `held` are the epochs of which this host holds the key, in ascending order,
    from the present one on.
    """

    current: int
    commitment: str
    rekey_wanted: bool
    held: Sequence[HeldEpoch] = ()

    @property
    def has_key(self) -> bool:
        """Whether this host holds the key of the present epoch."""
        return bool(self.commitment) and (self.current, self.commitment) in [one[:2] for one in self.held]

    @property
    def next_number(self) -> int:
        """The number of the next epoch: behind those that this host knows, so that no number has two keys."""
        later = [one.key_epoch for one in self.held if one.key_epoch <= self.current + MOST_LEFT_OUT]
        return max([self.current, *later]) + 1


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


def may_seal_on(view: TopicView, *, is_refused: bool) -> bool:
    """Whether the present key seals on while this host may make no further epoch for some time.

    The next one may be wanted because a member has asked for it again and again, which would hold up every
    sender. After a revocation the broker refuses the present epoch, and sends wait for the next one.
    """
    return view.has_key and not is_refused


def lost_epochs(view: TopicView) -> Sequence[int]:
    """Return the held epochs behind the present one: the broker has lost them with a restore.

    They are registered again only if they follow the present epoch without a gap: each names the commitment
    of the one before. An epoch on another past belongs to a topic of the same name that was deleted, or to a
    time that the broker and other members have gone on without.
    """
    if view.current and not view.has_key:
        return ()
    lost = list[int]()
    number, commitment = view.current, view.commitment
    for one in view.held:
        if one.key_epoch <= view.current:
            continue
        if one.key_epoch != number + 1 or one.previous_commitment != commitment:
            break
        number, commitment = one.key_epoch, one.commitment
        lost.append(number)
    return lost
