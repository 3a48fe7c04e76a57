"""The environment of a broker's parts: clocks, limits, metrics, and reports of failures."""

from __future__ import annotations

from msgspec import Struct

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.broker.tracing import BrokerTracing
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import OnCrash


class Environment(Struct, frozen=True, kw_only=True):
    """The clocks, limits and reports that every part of one broker is given.

    `clock` is for showing and for measuring durations, `lived` for deciding (upkeep/timekeeper.py).
    `on_crash` ends the broker when a background task of a part fails.
    """

    broker_id: str
    limits: Limits
    clock: Clock
    lived: LivedClock
    metrics: BrokerMetrics
    degraded: Degraded
    on_crash: OnCrash
    # None without a collector of traces.
    tracing: BrokerTracing | None = None
