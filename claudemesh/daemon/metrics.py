"""The daemon's metrics, `cm_daemon_*` (daemon.md, Metrics). No label names a member, a topic or an id."""

from __future__ import annotations

from collections.abc import Mapping

from claudemesh.daemon.disk import Room
from claudemesh.daemon.outbox.states import Status
from claudemesh.runtime.metrics import Metrics


class DaemonMetrics:
    """Counters that the parts turn, and gauges set when somebody asks."""

    def __init__(self) -> None:
        self._metrics = metrics = Metrics("cm_daemon")
        self._connected = metrics.gauge("connected", "1 while the link to the broker is up")
        self._lag = metrics.gauge("lag_ms", "Round trip to the broker in milliseconds")
        self._depth = metrics.gauge("outbox_depth", "Rows in the outbox", ("status",))
        self._disk = metrics.gauge("disk_pct", "How full it is, of the budget", ("kind",))
        self._invalid = metrics.gauge(
            "invalid_inbound_total", "Deliveries dropped because they were not genuine"
        )
        self._reconnects = metrics.counter("reconnects_total", "Links lost, by close code", ("reason",))
        self._sent = metrics.counter("send_total", "Sends that ended, by outcome", ("status",))
        self._rotations = metrics.counter("local_token_rotations_total", "New bearers of the loopback")
        self._received = metrics.counter("recv_total", "Messages received, by kind", ("kind",))

    def token_rotated(self) -> None:
        """Count a new bearer of the loopback."""
        self._rotations.inc()

    def link_down(self, reason: str) -> None:
        """Count a link that was lost."""
        self._reconnects.labels(reason).inc()

    def settled(self, status: Status) -> None:
        """Count a send that ended."""
        self._sent.labels(status.value).inc()

    def received(self, kind: str, count: int) -> None:
        """Count messages received."""
        self._received.labels(kind).inc(count)

    def render(
        self,
        *,
        connected: bool,
        lag_ms: int | None,
        depth: Mapping[str, int],
        invalid_inbound: int,
        room: Room,
    ) -> bytes:
        """Return everything as text, with the gauges as they are now."""
        self._connected.set(connected)
        self._lag.set(lag_ms or 0)
        for status, count in depth.items():
            self._depth.labels(status).set(count)
        self._invalid.set(invalid_inbound)
        self._disk.labels("disk").set(room.disk_pct)
        self._disk.labels("queue").set(room.queue_pct)
        return self._metrics.render()
