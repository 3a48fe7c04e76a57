"""Metrics of a daemon, `cm_daemon_*` (docs/spec/daemon.md, Metrics). No label names a member, topic or id."""

from __future__ import annotations

from collections.abc import Mapping

from claudemesh.daemon.disk import Room
from claudemesh.daemon.outbox.states import Status
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.wire import DESTINATION_KINDS
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.metrics import Metrics

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
_HOOK_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
# Ends of a link that have a label of their own: a broker may close with any of two thousand codes.
_LINK_ENDS = frozenset({"lost", *map(str, range(1000, 1016)), *(str(code.value) for code in CloseCode)})
# Conditions that are shown as 0 from the start. Others appear with their first report.
_CONDITIONS = (
    "disk_full",
    "outbox_unavailable",
    "inbox_unavailable",
    "queue_full",
    "rate_limited",
    "sends_refused",
)


class DaemonMetrics:
    """Counters that the parts increment, and gauges that are set at each rendering."""

    def __init__(self, conditions: Conditions | None = None) -> None:
        self._metrics = metrics = Metrics("cm_daemon")
        if conditions is not None:
            conditions.expect(_CONDITIONS)
            metrics.flags(
                "degraded", "Conditions by code: 1 while one holds, else 0", "code", conditions.states
            )
        self._connected = metrics.gauge("connected", "1 while the link to the broker is up")
        self._lag = metrics.gauge("lag_seconds", "Round trip to the broker in seconds")
        self._depth = metrics.gauge("outbox_depth", "Rows in the outbox", ("status",))
        self._age = metrics.gauge("outbox_age_seconds", "How long the oldest pending send has waited")
        self._streams = metrics.gauge("event_streams", "Event streams that are followed now")
        self._disk = metrics.gauge("disk_pct", "How full it is, of the budget", ("kind",))
        self._invalid = metrics.counter(
            "invalid_inbound_total", "Deliveries dropped because they were not genuine"
        )
        self._reconnects = metrics.counter("reconnects_total", "Links lost, by close code", ("reason",))
        self._sent = metrics.tally("send_total", "Sends that ended, by outcome", ("kind", "status"))
        self._unanswered = metrics.counter(
            "send_unanswered_total", "Sends that the broker left unanswered until their deadline"
        )
        self._limited = metrics.counter(
            "send_rate_limited_total", "Sends refused for the broker's rate limit"
        )
        self._held = metrics.gauge(
            "send_held_seconds", "How long the broker's rate limit still holds back the next send"
        )
        self._wrong = metrics.counter(
            "broker_replies_wrong_total",
            "Frames, events and replies of the broker that were wrong",
            ("kind",),
        )
        self._received = metrics.counter("recv_total", "Messages received, by kind", ("kind",))
        self._without_context = metrics.counter(
            "bodies_without_context_total",
            "Bodies received that an older version has sealed, without context",
        )
        self._dedupe = metrics.counter(
            "dedupe_total",
            "Messages that were there already: at the broker (out), or in the inbox (in)",
            ("direction",),
        )
        self._entries_refused = metrics.counter(
            "directory_refused_total", "Entries of the broker's member list refused, by reason", ("reason",)
        )
        self._rotations = metrics.counter("local_token_rotations_total", "New bearers of the loopback")
        self._clones = metrics.counter(
            "clone_suspected_total",
            "Members on another host than before, as the broker or host_fingerprint.json tells",
        )
        self._limits = metrics.counter(
            "guard_limits_total", "Limits of connections that were reached", ("transport", "limit")
        )
        self._add_api(metrics)
        self._add_files(metrics)
        self._add_keys(metrics)
        self._add_hooks(metrics)

    def _add_api(self, metrics: Metrics) -> None:
        self._requests = metrics.tally(
            "ipc_request_total", "Requests of local programs", ("endpoint", "status", "transport")
        )
        self._durations = metrics.timings(
            "ipc_duration_seconds", "How long they took", _BUCKETS, ("endpoint",)
        )

    def _add_files(self, metrics: Metrics) -> None:
        self._waiting = metrics.gauge("files_waiting", "Files that are not shared yet", ("state",))
        self._waiting_bytes = metrics.gauge("files_waiting_bytes", "Bytes of their encrypted copies")
        self._shared = metrics.counter("files_shared_total", "Shares of files that ended", ("status",))
        self._fetched = metrics.counter("files_fetched_total", "Downloads of files that ended", ("status",))
        self._file_bytes = metrics.counter(
            "file_bytes_total", "Bytes of files that were shared (out) and fetched (in)", ("direction",)
        )

    def _add_keys(self, metrics: Metrics) -> None:
        self._receipts = metrics.counter(
            "receipts_total",
            "Receipts told to senders (out), and those that advanced a send (in)",
            ("direction",),
        )
        self._force_expired = metrics.counter(
            "archive_force_expired_total", "Archived keys removed before their time to make room for another"
        )
        self._archived = metrics.counter(
            "decrypt_archived_total", "Messages opened with an archived key of this member"
        )
        self._stale = metrics.counter(
            "decrypt_stale_total", "Messages sealed to a key of this member that has left the archive"
        )

        self._without_text = metrics.gauge(
            "inbox_sealed", "Messages without a text: for want of a key, or set aside", ("state",)
        )
        self._keys_wanted = metrics.gauge("topic_keys_wanted", "Topics of which a key is awaited")
        self._wraps_wrong = metrics.gauge(
            "topic_wraps_wrong", "Wraps of topic keys that did not open to their epoch, since the start"
        )

    def _add_hooks(self, metrics: Metrics) -> None:
        self._hooks = metrics.counter(
            "hook_invocations_total", "Hooks run, by how they ended", ("hook", "exit")
        )
        self._hook_seconds = metrics.histogram("hook_duration_seconds", "How long hooks took", _HOOK_BUCKETS)
        self._hook_calls = metrics.counter(
            "hook_capability_calls_total", "What hooks asked of the API", ("hook", "scope")
        )
        self._unenforceable = metrics.counter(
            "hook_unenforceable_total", "Hooks run with a network that could not be taken from them"
        )

    def file_shared(self, status: str, size: int) -> None:
        """Count a share that ended as `shared` or `failed`."""
        self._shared.labels(status).inc()
        if status == "shared":
            self._file_bytes.labels("out").inc(size)

    def file_fetched(self, status: str, size: int) -> None:
        """Count a download that ended as `fetched`, or with the code of its error."""
        self._fetched.labels(status).inc()
        if status == "fetched":
            self._file_bytes.labels("in").inc(size)

    def requested(self, endpoint: str, status: int, transport: str, seconds: float | None) -> None:
        """Count a request of a local program, and its duration if `seconds` is given."""
        self._requests.inc(endpoint, str(status), transport)
        if seconds is not None:
            self._durations.observe(seconds, endpoint)

    def receipts_told(self, count: int) -> None:
        """Count receipts that are in the outbox."""
        self._receipts.labels("out").inc(count)

    def receipts_taken(self, count: int) -> None:
        """Count receipts that have advanced a send."""
        self._receipts.labels("in").inc(count)

    def reply_wrong(self, kind: str) -> None:
        """Count a malformed frame, event or reply of the broker, by its kind."""
        self._wrong.labels(kind).inc()

    def limit_reached(self, transport: str, limit: str) -> None:
        """Count a limit of the guard for which a connection was ended, refused or slowed."""
        self._limits.labels(transport, limit).inc()

    def hook_ran(self, hook: str, exit: str, seconds: float) -> None:
        """Count a hook that ended, by its exit code, `timeout`, `signal` or `not_started`."""
        self._hooks.labels(hook, exit).inc()
        self._hook_seconds.observe(seconds)

    def hook_called(self, hook: str, scope: str) -> None:
        """Count a request of a hook with its capability token."""
        self._hook_calls.labels(hook, scope).inc()

    def hook_unenforceable(self) -> None:
        """Count a hook that has the network although its policy is `deny`."""
        self._unenforceable.inc()

    def token_rotated(self) -> None:
        """Count a rotation of the loopback token."""
        self._rotations.inc()

    def entry_refused(self, reason: str) -> None:
        """Count a newly refused entry of the broker's member list."""
        self._entries_refused.labels(reason).inc()

    def archive_force_expired(self, count: int) -> None:
        """Count archived keys that made room for another one."""
        self._force_expired.inc(count)

    def sealed_to_older_key(self, is_opened: bool) -> None:
        """Count a message that was sealed to a rotated-out key of this member."""
        (self._archived if is_opened else self._stale).inc()

    def clone_suspected(self) -> None:
        """Count a member whose keys may have been copied."""
        self._clones.inc()

    def link_down(self, reason: str) -> None:
        """Count a link that was lost. A close code that the protocol does not list counts as `other`."""
        self._reconnects.labels(reason if reason in _LINK_ENDS else "other").inc()

    def settled(self, payload: bytes, status: Status, *, duplicate: bool) -> None:
        """Count a send that ended, by the destination kind in its frozen envelope."""
        self._sent.inc(_kind_of(payload), status.value)
        if duplicate:
            self._dedupe.labels("out").inc()

    def unanswered(self, count: int) -> None:
        """Count sends that were not answered before their deadline."""
        self._unanswered.inc(count)

    def rate_limited(self) -> None:
        """Count a send that the broker refused for its rate limit."""
        self._limited.inc()

    def body_without_context(self) -> None:
        """Count an opened body without a context."""
        self._without_context.inc()

    def received(self, kind: str, count: int) -> None:
        """Count messages received."""
        self._received.labels(kind).inc(count)

    def received_invalid(self) -> None:
        """Count a delivery that was dropped because it was not genuine."""
        self._invalid.inc()

    def received_again(self, count: int) -> None:
        """Count deliveries that were in the inbox already."""
        self._dedupe.labels("in").inc(count)

    def render(
        self,
        *,
        connected: bool,
        lag_ms: int | None,
        depth: Mapping[str, int],
        room: Room,
        oldest_s: float,
        held_s: float,
        streams: int,
        files: Mapping[str, int],
        files_bytes: int,
        sealed: Mapping[str, int],
        keys_wanted: int,
        wraps_wrong: int,
    ) -> bytes:
        """Return all metrics as Prometheus text, with the present values of the gauges."""
        self._connected.set(connected)
        self._lag.set((lag_ms or 0) / 1000)
        self._age.set(oldest_s)
        self._held.set(held_s)
        self._streams.set(streams)
        for status, count in depth.items():
            self._depth.labels(status).set(count)
        for state, count in files.items():
            self._waiting.labels(state).set(count)
        self._waiting_bytes.set(files_bytes)
        for state, count in sealed.items():
            self._without_text.labels(state).set(count)
        self._keys_wanted.set(keys_wanted)
        self._wraps_wrong.set(wraps_wrong)
        self._disk.labels("disk").set(room.disk_pct)
        self._disk.labels("queue").set(room.queue_pct)
        return self._metrics.render()


def _kind_of(payload: bytes) -> str:
    """Return the destination kind without parsing: the JSON of an envelope always has the same form."""
    for kind in DESTINATION_KINDS:
        if b'"destination_kind":"%b"' % kind.encode() in payload:
            return kind
    return "other"
