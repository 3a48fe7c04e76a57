"""Metrics of a broker: `cm_broker_*`. No label can hold a member, an id or a name."""

from __future__ import annotations

from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.metrics import Metrics

_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_STATUS = {status: str(status) for status in (200, 201, 409, 429, 503, 507)}
_REFUSED = "refused"
_LIMITS = ("connections", "descriptors", "strangers", "strangers_per_address")
_QUOTAS = ("member", "mesh")
_BLOB_REFUSALS = ("member_quota_exceeded", "mesh_quota_exceeded", "too_many_blobs", "too_many_uploads")
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class BrokerMetrics:
    """Every counter, gauge and histogram of one broker (docs/spec/broker.md, Metrics)."""

    def __init__(self) -> None:
        made = Metrics("cm_broker")
        self.render = made.render
        self._accepts = made.tally("accepts", "Sends answered, by status", ("status",))
        for label in (*_STATUS.values(), _REFUSED):
            self._accepts.add(0, label)
        self._accept_seconds = made.timings("accept_seconds", "From the frame to its answer", _LATENCY_S)
        self.accept_batch = made.histogram("accept_batch_size", "Sends that shared a commit", _BATCH)
        self.deliveries = made.counter("deliveries", "Deliver frames handed to connections")
        self.acknowledged = made.counter("deliveries_acknowledged", "Delivery rows removed by acks")
        self.unacknowledged = made.gauge("deliveries_unacknowledged", "Sent on open connections, no ack yet")
        self.connections = made.gauge("connections", "Open connections that are authenticated")
        self.presence_events = made.counter("presence_events", "Events about members that came or went, put")
        self.handshakes = made.counter("handshakes", "Handshakes, by how they ended", ("outcome",))
        self.closes = made.counter("closes", "Connections that the broker closed, by kind", ("kind",))
        limiter = made.counter("rate_limit_decisions", "Limiter decisions", ("decision",))
        self._allowed = limiter.labels("allowed")
        self._refused = limiter.labels("refused")
        self.limiter_unavailable = limiter.labels("unavailable")
        self.consumed_then_refused = made.counter(
            "rate_limit_consumed_then_b2_rejected", "Counted by the limiter, then refused in the transaction"
        )
        self.quota_refused = made.counter(
            "quota_refused", "Sends refused because a quota of stored bytes is used up, by whose", ("quota",)
        )
        self.fingerprint_drift = made.counter(
            "dedupe_fingerprint_mismatch", "Sends whose fingerprint is not the one they claim"
        )
        self.store_errors = made.counter("store_errors", "Store operations that failed", ("operation",))
        self.job_runs = made.counter("job_runs", "Jobs that ran, by outcome", ("job", "outcome"))
        self.signals = made.counter("signals", "Signals of other brokers", ("kind",))
        self.wakeups_missed = made.counter(
            "wakeups_missed", "Deliveries found by the sweep that no signal told of"
        )
        self.violations = made.counter(
            "atomicity_violation_found", "Rows that an accept or a sweep never leaves behind", ("kind",)
        )
        self.topic_epochs = made.counter("topic_epochs", "Epochs of topics, by outcome", ("outcome",))
        self.topic_wraps = made.counter("topic_wraps", "Wraps of topic keys that were added")
        self.topic_keys_asked = made.counter(
            "topic_keys_asked", "Holders that were asked for a wrap or an epoch", ("event",)
        )
        self._limits = made.counter("guard_limits", "Limits of connections that were reached", ("limit",))
        # An alert sees a rise from 0 only, so series of known labels are there from the start.
        for limit in _LIMITS:
            self._limits.labels(limit)
        for outcome in ("made", "conflict", "refused"):
            self.topic_epochs.labels(outcome)
        for quota in _QUOTAS:
            self.quota_refused.labels(quota)
        self._measure_blobs(made)
        self._made = made
        self.joins = made.counter("joins", "Join requests, by outcome", ("outcome",))

    def _measure_blobs(self, made: Metrics) -> None:
        self.blob_bytes = made.counter("blob_bytes", "Bytes of blobs carried, by direction", ("direction",))
        self.blob_transfers = made.gauge("blob_transfers", "Requests that carry bytes of blobs now")
        self.blobs_completed = made.counter("blobs_completed", "Uploads whose bytes are all here, verified")
        self.blobs_refused = made.counter(
            "blobs_refused", "Uploads that may not begin, by reason", ("reason",)
        )
        self.blobs_deleted = made.counter("blobs_deleted", "Blobs that the sweep has deleted")
        self.blobs_stored_bytes = made.gauge("blobs_stored_bytes", "Bytes of blobs, as of the last sweep")
        for reason in _BLOB_REFUSALS:
            self.blobs_refused.labels(reason)
        for direction in ("up", "down"):
            self.blob_bytes.labels(direction)

    def show(self, conditions: Conditions) -> None:
        """Show which conditions hold."""
        self._made.flags("degraded", "Conditions that hold now, by code", "code", conditions.states)

    def limit_reached(self, limit: str) -> None:
        """Count a limit of the guard: a connection was ended, refused or slowed for it."""
        self._limits.labels(limit).inc()

    def limited(self, allowed: int, refused: int) -> None:
        """Count the limiter's decisions on a batch."""
        self._allowed.inc(allowed)
        self._refused.inc(refused)

    def answered(self, status: int, seconds: float) -> None:
        """Count one answered send."""
        self._accepts.inc(_STATUS.get(status, _REFUSED))
        self._accept_seconds.observe(seconds)
