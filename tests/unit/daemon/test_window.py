"""The rows in flight: their deadline, and the isolation of a frame that ends the link."""

from __future__ import annotations

from claudemesh.daemon.outbox.types import Claimed
from claudemesh.daemon.outbox.window import TOO_BIG, Window

GOING_AWAY = 1001


def row(name: str, size: int = 100) -> Claimed:
    return Claimed(name, name, b"x" * size, 0)


def leave(window: Window, now_s: float = 0.0) -> list[str]:
    """Hand over everything that may leave now."""
    left = []
    while (found := window.next(now_s)) is not None:
        left.append(found.id)
    return left


def names(rows: object) -> list[str]:
    return [found.id for found in rows]  # type: ignore[attr-defined]


def test_after_a_frame_too_large_the_largest_row_leaves_alone() -> None:
    """Its answer clears those that are not larger, and they leave together."""
    window = Window()
    rows = [row("small"), row("large", 900), row("medium", 500)]
    window.take(rows)
    assert leave(window) == ["small", "large", "medium"]
    assert names(window.lost(TOO_BIG, 1.0).again) == ["small", "large", "medium"]
    window.take(rows)
    assert window.isolating
    assert leave(window) == ["large"]
    assert window.answered("large") == rows[1]
    assert leave(window) == ["small", "medium"]
    assert not window.isolating


def test_the_row_that_ends_the_link_twice_dies_and_its_neighbours_go_on() -> None:
    """The second 1009 comes while it is alone in flight."""
    window = Window()
    rows = [row("small"), row("large", 900)]
    window.take(rows)
    leave(window)
    assert window.lost(TOO_BIG, 1.0).culprit is None
    window.take(rows)
    assert leave(window) == ["large"]
    lost = window.lost(TOO_BIG, 2.0)
    assert lost.culprit == rows[1]
    assert names(lost.again) == ["small"]
    window.take([rows[0], row("new")])
    assert leave(window) == ["new"]
    window.answered("new")
    assert leave(window) == ["small"]


def test_links_that_die_right_after_a_row_left_make_it_suspect_but_never_dead() -> None:
    """It leaves alone, and after a backoff, so that others have their turn."""
    window = Window()
    for _ in range(2):
        window.take([row("a")])
        assert leave(window) == ["a"]
        lost = window.lost(0, 0.5)
    assert names(lost.later) == ["a"]
    window.take([row("b"), row("a"), row("c")])
    assert leave(window) == ["b", "c"]
    window.answered("b")
    window.answered("c")
    assert leave(window) == ["a"]
    assert window.lost(GOING_AWAY, 0.6).culprit is None


def test_a_row_that_had_left_long_before_a_link_died_is_not_suspect() -> None:
    """Links die of other things."""
    window = Window()
    for _ in range(5):
        window.take([row("a")])
        leave(window, 0.0)
        assert names(window.lost(0, 60.0).again) == ["a"]


def test_only_rows_that_have_waited_for_the_whole_deadline_are_overdue() -> None:
    """And a row that left alone makes room for others again."""
    window = Window()
    window.take([row("a")])
    leave(window, 0.0)
    window.take([row("b")])
    leave(window, 30.0)
    assert names(window.overdue(60.0, 60.0)) == ["a"]
    assert window.first_sent_s() == 30.0
    assert window.answered("a") is None
    assert len(window) == 1
