"""Decisions about the key of a topic: each state has one next step."""

from __future__ import annotations

import pytest

from claudemesh.daemon.topics.key_steps import Step, TopicView, lost_epochs, next_step

A, B, C = "a" * 64, "b" * 64, "c" * 64
NONE = TopicView(0, "", False)
HELD = TopicView(2, B, False, ((2, B),))
WANTED = TopicView(2, B, True, ((2, B),))
MISSING = TopicView(2, B, False, ((1, A),))
OTHER = TopicView(2, B, False, ((2, C),))
UNSIGNED = TopicView(2, "", False, ((2, ""),))
LOST = TopicView(1, A, False, ((1, A), (2, B), (3, C)))
LOST_ALL = TopicView(0, "", False, ((1, A), (2, B)))


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
        (TopicView(1, A, False, ((1, A), (3, C))), []),
        (TopicView(1, B, False, ((1, A), (2, B))), []),
    ],
)
def test_lost_epochs_follow_the_present_one_without_a_gap(view: TopicView, lost: list[int]) -> None:
    """An epoch on another past is not registered."""
    assert list(lost_epochs(view)) == lost
