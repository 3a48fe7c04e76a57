"""The rows in flight: their deadline, and the isolation of a frame that ends the link."""

from __future__ import annotations

from claudemesh.daemon.outbox.types import TakenRow
from claudemesh.daemon.outbox.window import TOO_BIG, Window
from claudemesh.protocol.wire import BATCH_BYTES, BATCH_ITEMS

GOING_AWAY = 1001


def row(name: str, size: int = 100) -> TakenRow:
    return TakenRow(name, name, b"x" * size, 0)


def leave(window: Window, now_s: float = 0.0) -> list[str]:
    """Hand over everything that may leave now."""
    left = []
    while (found := window.next(now_s)) is not None:
        left.append(found.id)
    return left


def names(rows: object) -> list[str]:
    return [found.id for found in rows]  # type: ignore[attr-defined]


def test_rows_leave_together_as_far_as_one_frame_takes_them() -> None:
    """The deadline of a row behind a large one begins when the large one has left."""
    window = Window()
    window.take([row("small"), row("large1", BATCH_BYTES), row("large2", BATCH_BYTES), row("last")])
    assert [names(window.next_few(at)) for at in (0.0, 40.0, 80.0, 120.0)] == [
        ["small"],
        ["large1"],
        ["large2"],
        ["last"],
    ]
    assert names(window.overdue(120.0, 60.0)) == ["small", "large1"]
    window = Window()
    window.take([row(str(number)) for number in range(BATCH_ITEMS + 1)])
    assert [len(window.next_few(0.0)), len(window.next_few(0.0))] == [BATCH_ITEMS, 1]
    assert window.next_few(0.0) == []


def test_after_a_frame_too_large_each_row_larger_than_those_that_were_taken_leaves_alone() -> None:
    """An answer clears those that are not larger, and all keep their places."""
    window = Window()
    rows = [row("small"), row("large", 900), row("medium", 500), row("tiny", 10)]
    window.take(rows)
    assert leave(window) == ["small", "large", "medium", "tiny"]
    assert names(window.lost(TOO_BIG, 1.0).again) == ["small", "large", "medium", "tiny"]
    window.take(rows)
    assert window.isolating
    assert leave(window) == ["small"]
    assert window.answered("small") == rows[0]
    assert leave(window) == ["large"]
    assert window.answered("large") == rows[1]
    assert leave(window) == ["medium", "tiny"]
    assert not window.isolating


def test_the_row_that_ends_the_link_twice_dies_and_its_neighbours_go_on() -> None:
    """The second 1009 comes while it is alone in flight."""
    window = Window()
    rows = [row("large", 900), row("small")]
    window.take(rows)
    leave(window)
    assert window.lost(TOO_BIG, 1.0).culprit is None
    window.take(rows)
    assert leave(window) == ["large"]
    lost = window.lost(TOO_BIG, 2.0)
    assert lost.culprit == rows[0]
    assert names(lost.again) == ["small"]
    window.take([rows[1], row("new")])
    assert leave(window) == ["small"]
    window.answered("small")
    assert leave(window) == ["new"]


def test_rows_keep_their_order_over_links_that_die_right_after_they_left() -> None:
    """A suspect leaves alone, at its place: what was queued behind it follows when it is answered."""
    window = Window()
    rows = [row("a"), row("b")]
    for _ in range(2):
        window.take(rows)
        assert leave(window) == ["a", "b"]
        assert names(window.lost(0, 0.5).again) == ["a", "b"]
    window.take([*rows, row("c")])
    assert leave(window) == ["a"]
    assert names(window.lost(0, 0.5).again) == ["a", "b", "c"]
    window.take([*rows, row("c")])
    order = []
    for name in ("a", "b", "c"):
        order += leave(window)
        window.answered(name)
    assert order == ["a", "b", "c"]


def test_a_row_that_ends_the_link_twice_alone_is_put_off_but_never_dies() -> None:
    """Others have their turn during its backoff; each of its attempts is alone."""
    window = Window()
    for losses in range(6):
        window.take([row("a"), row("b")])
        assert leave(window) == (["a", "b"] if losses < 2 else ["a"])
        lost = window.lost(GOING_AWAY, 0.5)
        assert lost.culprit is None
        assert ("a" in names(lost.later)) is (losses >= 3)
        assert "b" in names(lost.again)
    window.take([row("b")])
    assert leave(window) == ["b"]
    window.answered("b")
    window.take([row("c"), row("a"), row("d")])
    assert leave(window) == ["c"]
    window.answered("c")
    assert leave(window) == ["a"]


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
