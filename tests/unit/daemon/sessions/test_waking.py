"""Waking: the push that a session gets for its messages, and when it gets another one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.sessions.trust import trust_of
from claudemesh.daemon.sessions.waking import (
    IN_FLIGHT_S,
    MAX_HOPS,
    MAX_TEXT_BYTES,
    RETRY_S,
    Push,
    Pushable,
    Waiting,
    decide,
    hold_of,
)

IDLE = Pushable(reach="push", activity="idle")


def message(number: int = 1, **fields: Any) -> Waiting:
    given: dict[str, Any] = {"trust": "wake", "size": 10, **fields}
    return Waiting(id=f"m{number}", **given)


def test_a_single_short_message_is_pushed_with_its_text() -> None:
    """Two messages, a long one, and one with a file are a pointer: bodies come by mesh_inbox."""
    assert decide([message()], IDLE, 0.0) == Push("text", "due", ("m1",), IN_FLIGHT_S)
    assert decide([message(1), message(2)], IDLE, 0.0).form == "pointer"
    assert decide([message(size=MAX_TEXT_BYTES + 1)], IDLE, 0.0).form == "pointer"
    assert decide([message(is_whole=False)], IDLE, 0.0).form == "pointer"


@pytest.mark.parametrize(
    ("fields", "hold"),
    [
        ({}, None),
        ({"kind": "queue"}, None),
        ({"intent": "request"}, None),
        ({"hops": MAX_HOPS}, None),
        ({"trust": "inbox"}, "inbox"),
        ({"trust": "mute"}, "mute"),
        ({"intent": "ack"}, "acknowledgement"),
        ({"in_loop": True}, "loop"),
        ({"hops": MAX_HOPS + 1}, "loop"),
        ({"kind": "topic"}, "topic"),
        ({"kind": "topic", "is_mentioned": True}, None),
    ],
)
def test_a_message_wakes_unless_trust_intent_loop_or_topic_hold_it(
    fields: dict[str, Any], hold: str | None
) -> None:
    """A held message stays in the inbox and begins no push."""
    held = message(**fields)
    assert hold_of(held) == hold
    assert (decide([held], IDLE, 0.0).form == "none") == (hold is not None)


def test_a_held_message_is_not_counted_in_the_pointer() -> None:
    """It would otherwise reach the session beside one that may wake it."""
    found = decide([message(1, trust="inbox"), message(2), message(3)], IDLE, 0.0)
    assert found.ids == ("m2", "m3")


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (Pushable(reach="turn", activity="idle"), "reach"),
        (Pushable(reach="pull", activity="idle"), "reach"),
        (Pushable(reach="push", activity="away"), "away"),
    ],
)
def test_a_session_that_cannot_be_woken_gets_no_push(session: Pushable, reason: str) -> None:
    """It sees its messages at its next turn, or when it asks."""
    assert decide([message()], session, 0.0) == Push("none", reason)  # type: ignore[arg-type]


def test_a_push_that_is_not_shown_is_repeated_three_times_and_then_left() -> None:
    """After 30 s, 2 min and 10 min, each counted from the push before."""
    times: list[float] = []
    now = 0.0
    while True:
        last = times[-1] if times else None
        in_flight = Pushable(reach="push", activity="working", in_flight_since=last)
        found = decide([message(pushed_at=tuple(times))], in_flight, now)
        if found.form != "none":
            times.append(now)
        if found.again_s is None:
            break
        now += found.again_s
    assert times == [0.0, 30.0, 150.0, 750.0]
    assert found.reason == "left"
    assert tuple(b - a for a, b in pairwise(times)) == RETRY_S


def test_one_push_is_in_flight_until_it_is_proven_or_lost() -> None:
    """A client drops pushes without a word when many come at once."""
    pushed, fresh = message(1, pushed_at=(0.0,)), message(2)
    waits = Pushable(reach="push", activity="idle", in_flight_since=0.0)
    assert decide([pushed, fresh], waits, 10.0) == Push("none", "in_flight", again_s=20.0)
    assert decide([pushed, fresh], IDLE, 10.0).ids == ("m1", "m2")
    assert decide([pushed, fresh], waits, IN_FLIGHT_S).form == "pointer"


@given(
    waiting=st.lists(
        st.builds(
            Waiting,
            id=st.text(min_size=1, max_size=4),
            trust=st.sampled_from(["wake", "inbox", "mute"]),
            size=st.integers(0, 9999),
            kind=st.sampled_from(["dm", "topic", "queue"]),
            hops=st.integers(0, 40),
            in_loop=st.booleans(),
            pushed_at=st.lists(st.floats(0, 1000), max_size=5).map(lambda times: tuple(sorted(times))),
        ),
        max_size=5,
    ),
    since=st.none() | st.floats(0, 1000),
    now=st.floats(1000, 3000),
)
def test_no_state_pushes_a_held_message_or_waits_for_the_past(
    waiting: list[Waiting], since: float | None, now: float
) -> None:
    """Every decision names messages that may wake, and a time that is ahead."""
    found = decide(waiting, Pushable(reach="push", activity="idle", in_flight_since=since), now)
    free = {one.id for one in waiting if hold_of(one) is None}
    assert set(found.ids) <= free
    assert (found.form == "none") == (not found.ids)
    assert found.again_s is None or 0 < found.again_s <= max(RETRY_S)


def test_trust_is_by_name_and_ephemeral_members_wake_nothing_by_default() -> None:
    """Also in another spelling of the name."""
    assert trust_of("bob", is_ephemeral=False, given={}) == "wake"
    assert trust_of("ci-7", is_ephemeral=True, given={}) == "inbox"
    assert trust_of("Bob", is_ephemeral=False, given={"bob": "mute"}) == "mute"
    assert trust_of("ci-7", is_ephemeral=True, given={"ci-7": "wake"}) == "wake"
