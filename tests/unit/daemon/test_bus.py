"""Events reach every listener in order; one that falls behind is cut off alone."""

from __future__ import annotations

from claudemesh.daemon.bus import STREAM_LIMIT, Bus, BusEvent


def events(count: int, start: int = 0) -> list[BusEvent]:
    return [BusEvent("message", {}, str(number)) for number in range(start, start + count)]


async def test_every_stream_gets_every_event_in_order() -> None:
    """From the moment of subscribing on."""
    bus = Bus()
    bus.publish(events(1))
    with bus.subscribe() as one, bus.subscribe() as two:
        bus.publish(events(3, 1))
        for stream in (one, two):
            assert [(await anext(stream)).id for _ in range(3)] == ["1", "2", "3"]


async def test_a_slow_reader_is_cut_off_alone() -> None:
    """Past its bound a stream is lagged and ends; the others go on."""
    bus = Bus()
    with bus.subscribe() as slow, bus.subscribe() as quick:
        for number in range(STREAM_LIMIT + 1):
            bus.publish(events(1, number))
            await anext(quick)
        assert slow.lagged
        assert [event async for event in slow] == []
        assert not quick.lagged


async def test_closing_the_bus_ends_its_streams() -> None:
    """A reader that waits is told."""
    bus = Bus()
    with bus.subscribe() as stream:
        bus.close()
        assert [event async for event in stream] == []
