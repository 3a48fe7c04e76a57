"""Spans: begun under a context, ended with a name and attributes, and handed to an exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from claudemesh.protocol.traceparent import TraceContext
from claudemesh.runtime.clock import Clock

_TRACE_BYTES, _SPAN_BYTES = 16, 8


class Kind(IntEnum):
    """The kinds of spans, by their numbers in OTLP."""

    INTERNAL = 1
    SERVER = 2
    PRODUCER = 4
    CONSUMER = 5


@dataclass(frozen=True, slots=True)
class Span:
    """A span that has ended. `error` says why it failed."""

    name: str
    kind: Kind
    context: TraceContext
    parent_id: str | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A span that has begun. Its duration is measured by the monotonic clock."""

    context: TraceContext
    parent_id: str | None
    wall_ms: int
    since: float


class Tracer:
    """Makes spans and hands them on when they have ended."""

    def __init__(self, export: Callable[[Span], None], clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._export = export
        self._clock = clock
        self._entropy = entropy

    def begin(self, parent: TraceContext | None = None) -> Begun:
        """Begin a span under a context, or a trace of its own."""
        trace_id = self._entropy(_TRACE_BYTES).hex() if parent is None else parent.trace_id
        context = TraceContext(trace_id, self._entropy(_SPAN_BYTES).hex(), sampled=True)
        parent_id = None if parent is None else parent.span_id
        return Begun(context, parent_id, self._clock.wall_ms(), self._clock.monotonic())

    def begin_at(self, begun: Begun, parent: TraceContext) -> Begun:
        """Begin a span under a context at the time at which another one has begun."""
        context = TraceContext(parent.trace_id, self._entropy(_SPAN_BYTES).hex(), sampled=True)
        return Begun(context, parent.span_id, begun.wall_ms, begun.since)

    def end(
        self,
        begun: Begun,
        name: str,
        kind: Kind = Kind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
        error: str | None = None,
    ) -> None:
        """End a span now."""
        start_ns = begun.wall_ms * 1_000_000
        end_ns = start_ns + max(0, round((self._clock.monotonic() - begun.since) * 1e9))
        span = Span(name, kind, begun.context, begun.parent_id, start_ns, end_ns, attributes or {}, error)
        self._export(span)
