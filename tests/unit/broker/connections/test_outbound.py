"""The bounded queue in front of one socket."""

from __future__ import annotations

from claudemesh.broker.connections.outbound import Outgoing


def nothing() -> None:
    """Stand in for a listener that does not care."""


async def test_frames_leave_in_order() -> None:
    """First in, first out."""
    outgoing = Outgoing(10, 1000, nothing)
    for text in ("a", "b"):
        assert outgoing.put(text)
    assert [await outgoing.next(), await outgoing.next()] == ["a", "b"]


async def test_a_full_queue_takes_nothing() -> None:
    """When full in frames or in bytes, `put` returns False."""
    outgoing = Outgoing(2, 1000, nothing)
    assert outgoing.put("a")
    assert outgoing.put("b")
    assert not outgoing.put("c")
    assert not Outgoing(10, 5, nothing).put("123456")


async def test_room_is_announced_once_there_is_some_again() -> None:
    """Deliveries wait below half of the bound, and hear when they may go on."""
    heard: list[bool] = []
    outgoing = Outgoing(4, 1000, lambda: heard.append(True))
    outgoing.put("a")
    outgoing.put("b")
    assert outgoing.is_crowded
    assert not outgoing.has_room
    await outgoing.next()
    assert heard == [True]
    assert outgoing.has_room


async def test_a_large_frame_takes_the_room_of_many() -> None:
    """Above 1 MiB nothing more is delivered until it has left."""
    outgoing = Outgoing(100, 4 << 20, nothing)
    outgoing.put("x" * (1 << 20))
    assert not outgoing.has_room
    assert not outgoing.is_crowded


async def test_finish_lets_what_waits_leave() -> None:
    """After `finish` the rest leaves, then None says that it is over; later frames are dropped."""
    outgoing = Outgoing(10, 1000, nothing)
    outgoing.put("a")
    outgoing.finish(discard=False)
    assert outgoing.put("late")
    assert [await outgoing.next(), await outgoing.next()] == ["a", None]


async def test_finish_can_drop_what_waits() -> None:
    """A peer that reads nothing gets nothing more."""
    outgoing = Outgoing(10, 1000, nothing)
    outgoing.put("a")
    outgoing.finish(discard=True)
    assert await outgoing.next() is None
