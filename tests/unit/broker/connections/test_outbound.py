"""The bounded queue in front of one socket."""

from __future__ import annotations

from claudemesh.broker.connections.outbound import OutboundQueue


def nothing() -> None:
    """Stand in for a listener that does not care."""


async def test_frames_leave_in_order() -> None:
    """First in, first out."""
    outbound = OutboundQueue(10, 1000, nothing)
    for text in ("a", "b"):
        assert outbound.put(text)
    assert [await outbound.next(), await outbound.next()] == ["a", "b"]


async def test_a_full_queue_takes_nothing() -> None:
    """When full in frames or in bytes, `put` returns False."""
    outbound = OutboundQueue(2, 1000, nothing)
    assert outbound.put("a")
    assert outbound.put("b")
    assert not outbound.put("c")
    assert not OutboundQueue(10, 5, nothing).put("123456")


async def test_room_is_announced_once_there_is_some_again() -> None:
    """Deliveries wait below half of the bound, and hear when they may go on."""
    heard: list[bool] = []
    outbound = OutboundQueue(4, 1000, lambda: heard.append(True))
    outbound.put("a")
    outbound.put("b")
    assert outbound.is_crowded
    assert not outbound.has_room
    await outbound.next()
    assert heard == [True]
    assert outbound.has_room


async def test_a_large_frame_takes_the_room_of_many() -> None:
    """Above 1 MiB nothing more is delivered until it has left."""
    outbound = OutboundQueue(100, 4 << 20, nothing)
    outbound.put("x" * (1 << 20))
    assert not outbound.has_room
    assert not outbound.is_crowded


async def test_finish_lets_what_waits_leave() -> None:
    """After `finish` the rest leaves, then None says that it is over; later frames are dropped."""
    outbound = OutboundQueue(10, 1000, nothing)
    outbound.put("a")
    outbound.finish(discard=False)
    assert outbound.put("late")
    assert [await outbound.next(), await outbound.next()] == ["a", None]


async def test_finish_can_drop_what_waits() -> None:
    """A peer that reads nothing gets nothing more."""
    outbound = OutboundQueue(10, 1000, nothing)
    outbound.put("a")
    outbound.finish(discard=True)
    assert await outbound.next() is None
