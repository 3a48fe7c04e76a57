"""Publication of committed messages to followers, hooks and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.inbox.store import InboxRow, item
from claudemesh.daemon.metrics import DaemonMetrics


class InboxPublisher:
    """Publishes new messages, in the order of their seq."""

    def __init__(self, bus: Bus, metrics: DaemonMetrics, on_jobs: Callable[[], None]) -> None:
        """`on_jobs` is called when a commit held jobs of hooks."""
        self._bus = bus
        self._metrics = metrics
        self._on_jobs = on_jobs

    def stored(self, rows: Sequence[InboxRow], seqs: Sequence[int | None]) -> None:
        """Count the messages of a commit, and publish the new ones. `seqs` has None for one that is not new.

        A message that was stored sealed is published when it has been opened.
        """
        fresh = [(row, seq) for row, seq in zip(rows, seqs, strict=True) if seq is not None]
        for kind, count in Counter(row.kind for row, _ in fresh).items():
            self._metrics.received(kind, count)
        if len(fresh) < len(rows):
            self._metrics.received_again(len(rows) - len(fresh))
        if any(row.hooks for row, _ in fresh):
            self._on_jobs()
        # Without a stream no message is spelt.
        self._publish(item(row, seq) for row, seq in fresh if row.sealed is None)

    def dropped(self) -> None:
        """Count a delivery that is not genuine. It is not published."""
        self._metrics.received_invalid()

    def unsealed(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Publish messages that were stored sealed and are opened now, and start their hooks."""
        self._on_jobs()
        self._publish(items)

    def _publish(self, items: Iterable[Mapping[str, Any]]) -> None:
        self._bus.publish(event for item in items for event in _events(item))


def _events(item: Mapping[str, Any]) -> Iterator[BusEvent]:
    """Return the event of a message, and behind it one for each file that the message announces."""
    yield BusEvent("message", item, str(item["seq"]))
    for file in item["attachments"]:
        about = {name: item[name] for name in ("seq", "id", "sender_name", "sender_pubkey", "kind", "topic")}
        yield BusEvent("file_shared", {**file, **about, "untrusted": ("name", "media_type", "sender_name")})
