"""The pace under a rate limit: nothing leaves before the broker's time, and little is offered after it."""

from __future__ import annotations

from claudemesh.daemon.outbox.pace import WINDOW, Pace


def test_nothing_is_free_for_as_long_as_the_broker_asked() -> None:
    """And no longer; of two requests the longer one counts."""
    pace = Pace()
    assert pace.free(0, 0.0) == WINDOW
    pace.refused(2_000, 10.0)
    pace.refused(1_000, 10.5)
    assert (pace.free(0, 11.9), pace.held_until(11.9)) == (0, 12.0)
    assert pace.held_until(12.0) is None
    assert pace.free(0, 12.0) > 0


def test_each_hold_halves_the_window_and_each_accepted_send_widens_it() -> None:
    """Refusals of one hold count once; the window never closes for good."""
    pace = Pace()
    for _ in range(20):
        pace.refused(1_000, 0.0)
    assert pace.free(0, 1.0) == WINDOW // 2
    pace.accepted()
    assert pace.free(100, 1.0) == WINDOW // 2 + 1 - 100
    for number in range(20):
        pace.refused(1, float(number + 2))
    assert pace.free(0, 30.0) == 1
    for _ in range(2 * WINDOW):
        pace.accepted()
    assert pace.free(0, 30.0) == WINDOW


def test_a_limit_is_over_once_when_nothing_was_refused_for_a_while() -> None:
    """A broker that lets a few through at a time is at its limit all along."""
    pace = Pace()
    pace.refused(1_000, 0.0)
    assert not pace.recover(1.5)
    pace.refused(1_000, 4.0)
    assert not pace.recover(7.0)
    assert pace.recover(10.0)
    assert not pace.recover(11.0)
    assert pace.limited_until_s is None
