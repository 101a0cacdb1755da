"""The Prometheus text format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from oneiric.observability.catalog import METRICS
from oneiric.observability.meters import Reading, Spread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def expose(readings: Iterable[Reading]) -> bytes:
    """Return *readings*, and ``process_*`` of this process, as Prometheus scrapes them (exposition format 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(readings))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Readings(Collector):
    def __init__(self, readings: Iterable[Reading]) -> None:
        self._by_metric: defaultdict[str, list[Reading]] = defaultdict(list)
        for reading in readings:
            self._by_metric[reading.metric].append(reading)

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each metric of the catalog that was read."""
        for name, metric in METRICS.items():
            read = self._by_metric.get(name, [])
            labels = tuple(metric.labels)
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(name, metric.tells, labels=labels)
                for reading in read:
                    if isinstance(reading, Spread):
                        bounds = (*(str(float(bound)) for bound in metric.buckets), "+Inf")
                        histogram.add_metric(reading.labels, _cumulative(bounds, reading.counts), reading.total)
                yield histogram
                continue
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                name, metric.tells, labels=labels
            )
            for reading in read:
                if not isinstance(reading, Spread):
                    family.add_metric(reading.labels, reading.value)
            yield family


def _cumulative(bounds: tuple[str, ...], counts: tuple[int, ...]) -> list[tuple[str, float]]:
    total = 0
    cumulative: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        cumulative.append((bound, total))
    return cumulative
