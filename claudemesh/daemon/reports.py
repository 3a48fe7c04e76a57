"""Reports of what becomes of sends, to callers who wait, to metrics and to event streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import Settlement


class Reports:
    """Publishes the outcomes of sends, and the alarm of the disk."""

    def __init__(self, bus: Bus, metrics: DaemonMetrics, on_settled: Callable[[str], None]) -> None:
        """`on_settled` hears the client_message_id of each row that is done or dead."""
        self._bus = bus
        self._metrics = metrics
        self._on_settled = on_settled

    def settled(self, settlement: Settlement) -> None:
        """Report a row that is done or dead on the disk."""
        row = settlement.row
        self._on_settled(row.client_message_id)
        self._metrics.settled(row.payload, settlement.status, duplicate=settlement.duplicate)
        if settlement.status is Status.DEAD:
            data = {
                "id": row.id,
                "client_message_id": row.client_message_id,
                "reason": settlement.error,
            }
            self._bus.publish([BusEvent("outbox_dead", data)])

    def expired(self, row_ids: Sequence[str]) -> None:
        """Report rows that were given up because of their age."""
        for row_id in row_ids:
            self._bus.publish([BusEvent("outbox_dead", {"id": row_id, "reason": "max_age_exceeded"})])

    def pressure_high(self, found: Mapping[str, float]) -> None:
        """Report that the room for messages is running out."""
        self._bus.publish([BusEvent("outbox_pressure_high", found)])
