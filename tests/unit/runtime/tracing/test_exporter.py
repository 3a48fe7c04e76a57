"""The exporter with a collector behind HTTP."""

from __future__ import annotations

import asyncio
import os

from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.tracing.exporter import MAX_WAITING, Exporter
from claudemesh.runtime.tracing.spans import Kind, Tracer
from tests.support.collector import Collector, collector


def _export(made: Collector, count: int, rounds: int) -> None:
    async def run() -> None:
        exporter = Exporter(made.url, {"service.name": "test"})
        tracer = Tracer(exporter.add, SystemClock(), os.urandom)
        for number in range(count):
            tracer.end(tracer.begin(), f"span {number}", Kind.INTERNAL, {"n": number})
        for _ in range(rounds):
            await exporter.close()

    asyncio.run(run())


def test_spans_beyond_the_bound_are_dropped_and_the_older_ones_are_exported() -> None:
    """In batches, and in their order."""
    with collector() as made:
        _export(made, MAX_WAITING + 3, 9)
        assert [span["attributes"]["n"] for span in made.spans] == [str(n) for n in range(MAX_WAITING)]


def test_spans_that_a_collector_refuses_are_dropped_and_those_of_a_busy_one_stay() -> None:
    """400 is for ever, 503 is for now."""
    with collector() as made:
        made.refusals = [400]
        _export(made, 2, 2)
        assert made.spans == []
        made.refusals = [503]
        _export(made, 2, 2)
        assert [span["name"] for span in made.spans] == ["span 0", "span 1"]
