"""Prometheus metrics in a separate registry, because the library's default one adds metrics of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
# A creation time beside each counter would double the page.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Tally(Collector):
    """Counter for a hot path: one dictionary update, where the library's takes a lock and looks labels up.

    It is used from the event loop's thread only.
    """

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts: dict[tuple[str, ...], int] = {}

    def inc(self, *labels: str) -> None:
        """Count one."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def add(self, count: int, *labels: str) -> None:
        """Add `count`. With 0 the series appears with the value 0."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def collect(self) -> Iterator[Metric]:
        """Yield the counts."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class Flags(Collector):
    """A gauge of 0 and 1 per label, read from its owner whenever the page is rendered."""

    def __init__(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, bool]]) -> None:
        self._name, self._text, self._label, self._read = name, text, label, read

    def collect(self) -> Iterator[Metric]:
        """Yield the present flags."""
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        for value, is_set in self._read().items():
            family.add_metric([value], float(is_set))
        yield family


class Timings(Collector):
    """Histogram for a hot path: an observation costs a bisection and two additions."""

    def __init__(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...]) -> None:
        self._name, self._text, self._bounds, self._labels = name, text, buckets, labels
        self._found: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        if not labels:
            self._found[()] = self._zero()

    def observe(self, seconds: float, *labels: str) -> None:
        """Add one observation."""
        found = self._found.get(labels)
        if found is None:
            found = self._found[labels] = self._zero()
        found[0][bisect_left(self._bounds, seconds)] += 1
        found[1][0] += seconds

    def _zero(self) -> tuple[list[int], list[float]]:
        return [0] * (len(self._bounds) + 1), [0.0]

    def collect(self) -> Iterator[Metric]:
        """Yield the cumulative buckets."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        for labels, (counts, total) in self._found.items():
            cumulative = zip(names, accumulate(counts), strict=True)
            family.add_metric(labels, [(name, float(count)) for name, count in cumulative], total[0])
        yield family


class Metrics:
    """A set of metrics whose names share a prefix. Labels never hold a member, an id or a name."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._registry = CollectorRegistry()

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        """Make a counter; `_total` is added by the exposition when it is not there."""
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Make a gauge."""
        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        """Make a histogram with these upper bounds."""
        return Histogram(f"{self._prefix}_{name}", text, labels, registry=self._registry, buckets=buckets)

    def timings(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Timings:
        """Make a histogram for a hot path."""
        made = Timings(f"{self._prefix}_{name}", text, buckets, labels)
        self._registry.register(made)
        return made

    def tally(self, name: str, text: str, labels: tuple[str, ...]) -> Tally:
        """Make a counter for a hot path."""
        made = Tally(f"{self._prefix}_{name}", text, labels)
        self._registry.register(made)
        return made

    def flags(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, bool]]) -> None:
        """Show 0 or 1 for each value of a label, as `read` returns them at each rendering."""
        self._registry.register(Flags(f"{self._prefix}_{name}", text, label, read))

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
