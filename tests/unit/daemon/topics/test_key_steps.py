"""Decisions about the key of a topic: each state has one next step."""

from __future__ import annotations

import pytest

from claudemesh.daemon.topics.key_steps import (
    HeldEpoch,
    Step,
    TopicView,
    Wish,
    lost_epochs,
    may_seal_on,
    next_step,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64
NONE = TopicView(0, "", False)
FIRST, SECOND, THIRD = HeldEpoch(1, A), HeldEpoch(2, B, A), HeldEpoch(3, C, B)
HELD = TopicView(2, B, False, (SECOND,))
WANTED = TopicView(2, B, True, (SECOND,))
MISSING = TopicView(2, B, False, (FIRST,))
OTHER = TopicView(2, B, False, (HeldEpoch(2, C),))
UNSIGNED = TopicView(2, "", False, (HeldEpoch(2, ""),))
LOST = TopicView(1, A, False, (FIRST, SECOND, THIRD))
LOST_ALL = TopicView(0, "", False, (FIRST, SECOND))


@pytest.mark.parametrize("has_waited", [True, False])
@pytest.mark.parametrize("is_to_send", [True, False])
@pytest.mark.parametrize(
    ("view", "expected"),
    [(HELD, Step.USE), (WANTED, Step.MAKE), (LOST, Step.REGISTER), (LOST_ALL, Step.REGISTER)],
)
def test_a_holder_uses_renews_or_registers(
    view: TopicView, expected: Step, is_to_send: bool, has_waited: bool
) -> None:
    """Whether a send waits makes no difference to a member that holds the key."""
    assert next_step(view, is_to_send=is_to_send, has_waited=has_waited) is expected


@pytest.mark.parametrize("view", [MISSING, OTHER, UNSIGNED])
def test_a_member_without_the_key_makes_the_next_epoch_only_to_send(view: TopicView) -> None:
    """After the holders had their time. Another key of the same number, or an unsigned epoch, is none."""
    assert next_step(view, is_to_send=False, has_waited=True) is Step.WAIT
    assert next_step(view, is_to_send=True, has_waited=False) is Step.WAIT
    assert next_step(view, is_to_send=True, has_waited=True) is Step.MAKE


def test_the_first_sender_of_a_topic_waits_for_no_holder() -> None:
    """A receiver makes no epoch."""
    assert next_step(NONE, is_to_send=True, has_waited=False) is Step.MAKE
    assert next_step(NONE, is_to_send=False, has_waited=True) is Step.WAIT


@pytest.mark.parametrize(
    ("view", "lost"),
    [
        (LOST, [2, 3]),
        (LOST_ALL, [1, 2]),
        (HELD, []),
        (TopicView(1, A, False, (FIRST, THIRD)), []),
        (TopicView(1, B, False, (FIRST, SECOND)), []),
        (TopicView(1, A, False, (FIRST, HeldEpoch(2, B, C), THIRD)), []),
        (TopicView(0, "", False, (FIRST, HeldEpoch(2, C), THIRD)), [1]),
    ],
)
def test_lost_epochs_follow_the_present_one_without_a_gap(view: TopicView, lost: list[int]) -> None:
    """An epoch on another past is not registered."""
    assert list(lost_epochs(view)) == lost


@pytest.mark.parametrize(
    ("view", "number"),
    [
        (NONE, 1),
        (HELD, 3),
        (MISSING, 3),
        (TopicView(1, B, False, (FIRST, SECOND, THIRD)), 4),
        (TopicView(6, A, False, (HeldEpoch(6, A), HeldEpoch(20, B))), 21),
        (TopicView(6, A, False, (HeldEpoch(6, A), HeldEpoch(69, B))), 70),
        (TopicView(6, A, False, (HeldEpoch(6, A), HeldEpoch(70, B))), 7),
    ],
)
def test_a_new_epoch_follows_those_that_this_host_knows(view: TopicView, number: int) -> None:
    """As far as the broker lets numbers out, so that no number gets a second key."""
    assert view.next_number == number


def test_epochs_beyond_one_call_are_asked_for_in_turn() -> None:
    """Also when the first ones do not come."""
    wish = Wish(key_epochs=set(range(1, 151)))
    assert [(asked[0], asked[-1]) for asked in (wish.next_asked() for _ in range(4))] == [
        (1, 64),
        (65, 128),
        (129, 150),
        (1, 64),
    ]


@pytest.mark.parametrize(
    ("view", "is_refused", "seals_on"),
    [(WANTED, False, True), (WANTED, True, False), (MISSING, False, False), (OTHER, False, False)],
)
def test_a_host_that_may_make_no_epoch_seals_on_with_the_present_key(
    view: TopicView, is_refused: bool, seals_on: bool
) -> None:
    """If it holds that key, and the broker takes it."""
    assert may_seal_on(view, is_refused=is_refused) is seals_on
