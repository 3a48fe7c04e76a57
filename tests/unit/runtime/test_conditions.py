"""A condition is said once when it begins and once when it ends, and shown with its reason in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.logs import EventLogger
from claudemesh.runtime.metrics import Metrics
from tests.support.clock import ManualClock


class _Log(EventLogger):
    """A logger that keeps its events."""

    def __init__(self) -> None:
        super().__init__("test")
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))


def test_a_condition_logs_once_when_it_begins_and_once_when_it_ends_with_a_count() -> None:
    """However often it is reported in between."""
    clock, log = ManualClock(), _Log()
    conditions = Conditions(clock, log)
    for number in range(3):
        conditions.begin("disk_full", f"The disk is full ({number}).")
        clock.advance(seconds=2)
    conditions.end("disk_full")
    conditions.end("disk_full")
    assert log.events == [
        ("degraded", {"code": "disk_full", "detail": "The disk is full (0)."}),
        ("degraded_ended", {"code": "disk_full", "count": 3, "after_s": 6.0}),
    ]


def test_health_shows_the_newest_message_and_the_first_moment() -> None:
    """`since` stays while the message follows what is known."""
    clock = ManualClock(wall_ms=1_780_000_000_000)
    conditions = Conditions(clock, _Log())
    conditions.begin("disk_full", "first")
    clock.advance(seconds=5)
    conditions.set("disk_full", "second")
    assert conditions.items() == [
        {"code": "disk_full", "since": "2026-05-28T20:26:40.000Z", "message": "second"}
    ]
    conditions.set("disk_full", None)
    assert conditions.items() == []
    assert not conditions.holds("disk_full")


def test_the_metric_of_a_condition_falls_back_to_zero() -> None:
    """A series that disappears cannot be told from a process that does not report."""
    conditions = Conditions(ManualClock(), _Log())
    metrics = Metrics("cm_test")
    metrics.flags("degraded", "Conditions that hold", "code", conditions.states)
    conditions.begin("disk_full", "x")
    assert b'cm_test_degraded{code="disk_full"} 1.0' in metrics.render()
    conditions.end("disk_full")
    assert b'cm_test_degraded{code="disk_full"} 0.0' in metrics.render()
