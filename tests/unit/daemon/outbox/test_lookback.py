"""Choice of the done sends to ask about, and the verdict that the broker's database went back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.outbox.lookback import MAX_ASKED, DoneSend, can_be_asked, judge, places_to_ask
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.replies import KnownSend, SendStatuses

NOW = 1_780_000_000_000
DAY = 86_400_000


def ulid(at_ms: int) -> str:
    """A broker's id of a moment."""
    return UlidFactory(lambda: at_ms, lambda count: bytes(count)).new()


def done(number: int, at_ms: int = NOW, *, offerable: bool = True) -> DoneSend:
    """The send that the broker accepted as its `number`th."""
    return DoneSend(number, number, f"row-{number}", f"id-{number}", ulid(at_ms + number), offerable)


def answer(sends: list[DoneSend], known: set[DoneSend]) -> SendStatuses:
    """Return the answer of a broker that knows some of these sends."""
    return {
        send.client_message_id: KnownSend(send.broker_message_id, send.history_id) if send in known else None
        for send in sends
    }


def sample(newest_first: list[DoneSend]) -> list[DoneSend]:
    """The sends that are asked about."""
    return [newest_first[place] for place in places_to_ask() if place < len(newest_first)]


# Newest first: the broker accepted the last of them first.
SENDS = [done(number) for number in range(2000, 0, -1)]


@given(count=st.integers(0, 2000), kept=st.integers(0, 2000))
def test_a_copy_is_noticed_exactly_when_it_lacks_something(count: int, kept: int) -> None:
    """Any number of sends, any moment of the copy."""
    asked = sample(SENDS[len(SENDS) - count :])
    known = {send for send in asked if send.history_id <= kept}
    assert judge(asked, answer(asked, known)).went_back == (kept < count)


@given(count=st.integers(1, 2000), overtaken=st.integers(1, 15), data=st.data())
def test_commits_that_overtook_each_other_hide_nothing(
    count: int, overtaken: int, data: st.DataObject
) -> None:
    """The newest is in the copy, one a few places behind it is not."""
    missing = data.draw(st.integers(max(1, count - overtaken), count))
    asked = sample(SENDS[len(SENDS) - count :])
    verdict = judge(asked, answer(asked, {send for send in asked if send.history_id != missing}))
    assert [send.history_id for send in verdict.forgotten] == [missing]


def test_one_call_asks_about_few_ids_that_reach_far_back() -> None:
    """The newest in a row, the others ever farther apart."""
    places = list(places_to_ask())
    assert places[:16] == list(range(16))
    assert len(places) <= MAX_ASKED
    assert places[-1] > 500_000
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("age_days", "window_days", "asked"),
    [
        (0, 7, True),
        (5.9, 7, True),
        (6.1, 7, False),
        (30, 7, False),
        (30, 365, True),
        (5000, None, True),
        (-40, 7, True),
    ],
)
def test_an_id_that_the_broker_may_have_swept_is_not_asked(
    age_days: float, window_days: int | None, asked: bool
) -> None:
    """By the broker's own time on both ends; a clock of the broker's that was set back is no reason."""
    send = DoneSend(1, 1, "row", "id", ulid(int(NOW - age_days * DAY)), True)
    assert can_be_asked(send, NOW, window_days) is asked


def test_a_send_that_is_known_under_other_ids_was_accepted_anew() -> None:
    """So the database went back, and a repair has begun."""
    send = done(1)
    verdict = judge([send], {"id-1": KnownSend(ulid(NOW + 99), 7)})
    assert verdict.renamed == ((send, ulid(NOW + 99), 7),)
    assert verdict.went_back
