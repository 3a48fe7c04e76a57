"""Replies to exceptions of the broker's routes."""

from __future__ import annotations

import pytest

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.http.failures import not_found, reply_to
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageBroken, StorageUnavailable, StorageUnreachable
from tests.support.clock import ManualClock


def degraded() -> Degraded:
    clock = ManualClock(0)
    return Degraded(Conditions(clock), clock, BrokerMetrics())


@pytest.mark.parametrize(
    ("error", "status", "code", "condition"),
    [
        (ProtocolError("slug_taken", "Choose another slug."), 409, "slug_taken", None),
        (not_found(), 404, "not_found", None),
        (StorageUnavailable("busy"), 503, "storage_unavailable", "request_failing"),
        (StorageBroken("torn"), 503, "storage_unavailable", "request_failing"),
        (StorageUnreachable("gone"), 503, "storage_unavailable", "database_unreachable"),
        (RuntimeError("secret"), 500, "internal_error", "request_failing"),
    ],
)
def test_an_error_has_its_status_and_a_failure_is_a_condition(
    error: Exception, status: int, code: str, condition: str | None
) -> None:
    """A refusal is the client's; a failure is the broker's, and is not described to the client."""
    state = degraded()
    reply = reply_to(state, error)
    assert isinstance(reply.body, dict)
    assert (reply.status, reply.body["error"]) == (status, code)
    assert reply.body["message"].endswith(".")
    assert "secret" not in reply.body["message"]
    assert [item["code"] for item in state.conditions.items()] == ([] if condition is None else [condition])
