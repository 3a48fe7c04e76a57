"""Spans of a daemon for messages whose sender has given a sampled `traceparent` (docs/monitoring.md).

A daemon without `[metrics] otel_endpoint` has no such part, and passes a `traceparent` on as it came.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer, Status
from claudemesh.daemon.outbox.submitting import Submit
from claudemesh.daemon.outbox.types import Settlement, TakenRow
from claudemesh.protocol.traceparent import TraceContext, parse_traceparent, traceparent_in
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.tracing.exporter import Exporter
from claudemesh.runtime.tracing.spans import Begun, Kind, Tracer

# Sends whose spans are open. Beyond it the oldest one ends without its spans.
_MAX_OPEN = 4096
_ID = "messaging.message.id"


def tracing_of(
    endpoint: str | None, mesh: str, clock: Clock, new_id: Callable[[], str]
) -> DaemonTracing | None:
    """Return the part that makes spans, None without a collector."""
    if endpoint is None:
        return None
    exporter = Exporter(endpoint, {"service.name": "claudemesh-daemon", "claudemesh.mesh": mesh})
    return DaemonTracing(Tracer(exporter.add, clock, os.urandom), exporter, new_id)


def sampled(traceparent: object) -> TraceContext | None:
    """Return the context of a `traceparent` whose spans are recorded."""
    found = parse_traceparent(traceparent)
    return found if found is not None and found.sampled else None


class _Open(Struct):
    """A send on its way: the context of its request, and the span that is open."""

    parent: TraceContext
    begun: Begun


class DaemonTracing:
    """Makes the spans of requests, waits, links, deliveries and hooks."""

    def __init__(self, tracer: Tracer, exporter: Exporter, new_id: Callable[[], str]) -> None:
        self._tracer = tracer
        self.exporter = exporter
        self._new_id = new_id
        self._waiting: OrderedDict[str, _Open] = OrderedDict()
        self._away: OrderedDict[str, _Open] = OrderedDict()

    def submitting(self, submit: Submit) -> Submit:
        """Return a way into the outbox that makes a span of each traced send, which travels with it."""

        async def traced(
            request: SendRequest,
            *,
            wait_ms: int | None = None,
            on_queued: Callable[[], None] | None = None,
        ) -> Answer:
            parent = sampled(request.traceparent or traceparent_in(request.meta_json))
            if parent is None:
                return await submit(request, wait_ms=wait_ms, on_queued=on_queued)
            begun = self._tracer.begin(parent)
            mine = request.client_message_id or self._new_id()
            about: dict[str, str | int] = {_ID: mine, "claudemesh.kind": request.target.kind}
            is_new = mine not in self._waiting and mine not in self._away
            if is_new:
                _put(self._waiting, mine, _Open(begun.context, self._tracer.begin(begun.context)))
            sent = replace(request, client_message_id=mine, traceparent=begun.context.traceparent)
            try:
                answer = await submit(sent, wait_ms=wait_ms, on_queued=on_queued)
            except BaseException as error:
                self._waiting.pop(mine, None)
                self._tracer.end(begun, "claudemesh request", Kind.SERVER, about, type(error).__name__)
                raise
            if answer.status != 202 and is_new:
                # There is no row, or it has ended.
                self._waiting.pop(mine, None)
            about["http.response.status_code"] = answer.status
            refused = None if answer.status < 400 else str(answer.body.get("error"))
            self._tracer.end(begun, "claudemesh request", Kind.SERVER, about, refused)
            return answer

        return traced

    def taken(self, rows: Sequence[TakenRow]) -> None:
        """End the waits of rows that leave, and begin their time on the link."""
        for row in rows:
            found = self._waiting.pop(row.client_message_id, None)
            if found is None:
                continue
            self._tracer.end(found.begun, "claudemesh outbox", Kind.INTERNAL, {_ID: row.client_message_id})
            _put(
                self._away,
                row.client_message_id,
                _Open(found.parent, self._tracer.begin(found.parent)),
            )

    def settled(self, settlement: Settlement) -> None:
        """End the time of a row on the link. A row that waits again has a wait of its own."""
        row = settlement.row
        found = self._away.pop(row.client_message_id, None)
        if found is None:
            return
        about: dict[str, str | int] = {_ID: row.client_message_id, "claudemesh.attempts": row.attempts}
        self._tracer.end(found.begun, "claudemesh link", Kind.PRODUCER, about, settlement.error)
        if settlement.status is Status.PENDING:
            again = _Open(found.parent, self._tracer.begin(found.parent))
            _put(self._waiting, row.client_message_id, again)

    def arriving(self) -> Begun:
        """Begin the reception of a batch of messages."""
        return self._tracer.begin()

    def stored(self, rows: Sequence[InboxRow], begun: Begun) -> None:
        """Make a span of each traced message of a batch that is on the disk."""
        for row in rows:
            parent = sampled(traceparent_in(row.meta))
            if parent is not None:
                about = {_ID: row.client_message_id, "claudemesh.kind": row.kind}
                own = self._tracer.begin_at(begun, parent)
                self._tracer.end(own, "claudemesh delivery", Kind.CONSUMER, about)

    def hook(self, traceparent: str) -> Begun | None:
        """Begin the run of a hook under the `traceparent` of its event."""
        parent = sampled(traceparent)
        return None if parent is None else self._tracer.begin(parent)

    def hook_ended(self, begun: Begun, name: str, word: str) -> None:
        """End the run of a hook; `word` is its outcome."""
        about = {"claudemesh.hook": name, "claudemesh.outcome": word}
        self._tracer.end(begun, "claudemesh hook", Kind.INTERNAL, about, None if word == "0" else word)


def _put(opened: OrderedDict[str, _Open], key: str, value: _Open) -> None:
    opened[key] = value
    if len(opened) > _MAX_OPEN:
        opened.popitem(last=False)
