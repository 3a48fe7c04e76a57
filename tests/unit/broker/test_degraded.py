"""Failures become conditions: one for an unreachable database, else one for each operation."""

from __future__ import annotations

import re
from pathlib import Path

from claudemesh.broker import degraded
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageFull, StorageUnavailable, StorageUnreachable
from tests.support.clock import ManualClock


def made() -> tuple[Degraded, ManualClock, BrokerMetrics]:
    """One with nothing to say yet."""
    clock, metrics = ManualClock(), BrokerMetrics()
    return Degraded(Conditions(clock), clock, metrics), clock, metrics


def codes(found: Degraded) -> list[str]:
    """The conditions that hold."""
    return [item["code"] for item in found.conditions.items()]


def test_an_unreachable_database_is_one_condition_for_every_operation() -> None:
    """It ends when the database has answered for a while, not at the first answer between two failures."""
    found, clock, metrics = made()
    for operation in ("accept", "sweep", "audit"):
        found.failed(operation, StorageUnreachable("refused"))
    assert codes(found) == ["database_unreachable"]
    assert "did not answer" in found.conditions.items()[0]["message"]
    found.answered()
    assert codes(found) == ["database_unreachable"]
    # A broker that is ready again does not say that it accepts nothing.
    assert found.conditions.items()[0]["message"].startswith("The database answers again.")
    found.failed("accept", StorageUnreachable("refused"))
    assert "did not answer" in found.conditions.items()[0]["message"]
    clock.advance(seconds=Limits().answering_s)
    found.answered()
    assert codes(found) == []
    assert b'cm_broker_degraded{code="database_unreachable"} 0.0' in metrics.render()


def test_what_traffic_reports_is_over_when_it_has_not_come_again() -> None:
    """Without traffic nothing would end it; and no such condition makes the broker not ready."""
    found, clock, _ = made()
    found.failed("accept", StorageUnavailable("no such table"))
    assert codes(found) == ["accept_failing"]
    assert found.serving
    clock.advance(seconds=degraded.QUIET_S)
    found.answered()
    assert codes(found) == []


def test_a_loop_that_fails_makes_the_broker_not_ready_until_it_works() -> None:
    """Members would not be seen by others, or not get what others accepted."""
    for operation in ("sweep", "presence_renewal"):
        found, _, _ = made()
        found.failed(operation, KeyError("unforeseen"))
        assert not found.serving
        found.worked(operation)
        assert found.serving
        assert codes(found) == []


def test_every_operation_names_its_effect_and_a_remedy() -> None:
    """The shown message is a complete sentence, without the text of the error: strangers read it."""
    for operation in degraded._EFFECTS:
        for error in (StorageUnavailable("db7.internal"), StorageFull("db7"), KeyError("db7")):
            found, _, _ = made()
            found.failed(operation, error)
            [item] = found.conditions.items()
            assert item["message"].startswith(degraded._EFFECTS[operation])
            assert item["message"].endswith(". The log of the broker has the error.")
            assert "db7" not in item["message"]


def test_every_operation_that_may_fail_has_an_effect() -> None:
    """A report of an operation without one would itself fail."""
    reported = set()
    for path in Path(degraded.__file__).parent.rglob("*.py"):
        reported |= set(re.findall(r"\bfailed\(\s*\"(\w+)\"", path.read_text()))
    assert reported - {"ping"} <= degraded._EFFECTS.keys()
    assert len(reported) > 10
