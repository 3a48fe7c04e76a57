"""Spans of a broker: each commit of a batch is a trace of its own.

A broker cannot open messages, so it knows no trace of a sender. Its spans have counts, and neither content
nor names.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from claudemesh.runtime.clock import Clock
from claudemesh.runtime.tracing.exporter import Exporter
from claudemesh.runtime.tracing.spans import Tracer

T = TypeVar("T")
R = TypeVar("R")


class BrokerTracing:
    """Makes the spans of batches."""

    def __init__(self, tracer: Tracer, exporter: Exporter) -> None:
        self._tracer = tracer
        self.exporter = exporter

    def batch(
        self, name: str, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    ) -> Callable[[Sequence[T]], Awaitable[Sequence[R]]]:
        """Return the work on a batch with a span."""

        async def traced(items: Sequence[T]) -> Sequence[R]:
            begun, about = self._tracer.begin(), {"claudemesh.count": len(items)}
            try:
                done = await work(items)
            except BaseException as error:
                self._tracer.end(begun, name, attributes=about, error=type(error).__name__)
                raise
            self._tracer.end(begun, name, attributes=about)
            return done

        return traced


def tracing_of(endpoint: str | None, clock: Clock) -> BrokerTracing | None:
    """Return the part that makes spans, None without a collector."""
    if endpoint is None:
        return None
    exporter = Exporter(endpoint, {"service.name": "claudemesh-broker"})
    return BrokerTracing(Tracer(exporter.add, clock, os.urandom), exporter)
