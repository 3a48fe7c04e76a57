"""The last runs of hooks are kept up to a bound, newest first, and each is an event."""

from __future__ import annotations

from claudemesh.daemon.bus import Bus
from claudemesh.daemon.hooks.recent import KEPT, RecentRuns


async def test_the_last_runs_are_kept_newest_first_as_their_events_have_them() -> None:
    bus = Bus()
    recent = RecentRuns(bus, lambda: 1_780_000_000_000)
    with bus.subscribe() as stream:
        for number in range(KEPT + 5):
            recent.ended({"hook": "on-dm", "event_id": str(number)})
        events = [(await anext(stream)).data for _ in range(KEPT + 5)]
    assert recent.items() == events[: -KEPT - 1 : -1]
    assert events[0] == {"hook": "on-dm", "event_id": "0", "ended_at": "2026-05-28T20:26:40.000Z"}
