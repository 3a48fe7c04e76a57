"""Notices about sends that have ended: to callers that wait, to the event stream, to the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.types import Expired, Settlement


class Notices:
    """Publishes the end of each send, after it is on disk.

    `callers` are the callers that wait for it, `watchers` those that wait for a state of its message.
    """

    def __init__(
        self, bus: Bus, metrics: DaemonMetrics, callers: WaitingCallers, watchers: WaitingCallers
    ) -> None:
        self._bus = bus
        self._metrics = metrics
        self._callers = callers
        self._watchers = watchers

    def ended(self, settlement: Settlement) -> None:
        """Publish a send that is done, or dead by the broker's answer or because of its size."""
        row = settlement.row
        self._callers.release(row.client_message_id)
        self._watchers.release(row.client_message_id)
        self._metrics.settled(row.payload, settlement.status, duplicate=settlement.duplicate)
        if settlement.status is Status.DEAD:
            self._dead(row.id, row.client_message_id, settlement.error)

    def expired(self, rows: Sequence[Expired]) -> None:
        """Publish sends that are dead because of their age."""
        for row in rows:
            self._callers.release(row.client_message_id)
            self._watchers.release(row.client_message_id)
            self._dead(row.id, row.client_message_id, "max_age_exceeded")

    def pressure_high(self, found: Mapping[str, float]) -> None:
        """Publish that the disk or the outbox is almost full."""
        self._bus.publish([BusEvent("outbox_pressure_high", found)])

    def _dead(self, row_id: str, client_message_id: str, reason: str | None) -> None:
        data = {"id": row_id, "client_message_id": client_message_id, "reason": reason}
        self._bus.publish([BusEvent("outbox_dead", data)])
