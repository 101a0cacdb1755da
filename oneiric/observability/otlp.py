"""Readings as an OpenTelemetry collector takes them (OTLP 1.x, protobuf).

Metrics keep the catalog's names and have no unit, from which a collector would make other names for Prometheus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from oneiric.observability import catalog
from oneiric.observability.meters import Reading, Sample, Spread

_CUMULATIVE: Final = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE


class _Times(NamedTuple):
    """Since when is counted, and when it was read, in nanoseconds since 1970."""

    start: int
    now: int


def export_request(
    readings: Iterable[Reading], *, resource: Mapping[str, str], started_at: datetime, now: datetime
) -> bytes:
    """Return the body of one export.

    Args:
        resource: attributes that say who reports.
        started_at: since when counters and histograms count.
    """
    by_metric: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_metric[reading.metric].append(reading)
    times = _Times(_nanoseconds(started_at), _nanoseconds(now))
    scope = otlp.ScopeMetrics(
        scope=InstrumentationScope(name="oneiric", version=resource.get("service.version", "")),
        metrics=[_metric(catalog.METRICS[name], found, times) for name, found in by_metric.items()],
    )
    described = Resource(attributes=_attributes(resource))
    request = ExportMetricsServiceRequest(
        resource_metrics=[otlp.ResourceMetrics(resource=described, scope_metrics=[scope])],
    )
    content: bytes = request.SerializeToString()
    return content


def refused(answer: bytes) -> str:
    """Return what a collector says it did not take of an export that it accepted; "" for nothing.

    Raises ValueError when *answer* is not a collector's.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    response = ExportMetricsServiceResponse()
    try:
        response.ParseFromString(answer)
    except DecodeError as error:
        raise ValueError("the answer is not that of a collector") from error
    partial = response.partial_success
    if not partial.rejected_data_points:
        return ""
    return f"{partial.rejected_data_points} data points were refused: {partial.error_message or 'no reason given'}"


def _metric(metric: catalog.Metric, readings: Sequence[Reading], times: _Times) -> otlp.Metric:
    named = partial(otlp.Metric, name=metric.name, description=metric.tells)
    if metric.kind == "histogram":
        spreads = [_spread(metric, reading, times) for reading in readings if isinstance(reading, Spread)]
        return named(histogram=otlp.Histogram(data_points=spreads, aggregation_temporality=_CUMULATIVE))
    samples = [_sample(metric, reading, times) for reading in readings if isinstance(reading, Sample)]
    if metric.kind == "counter":
        return named(sum=otlp.Sum(data_points=samples, aggregation_temporality=_CUMULATIVE, is_monotonic=True))
    return named(gauge=otlp.Gauge(data_points=samples))


def _sample(metric: catalog.Metric, sample: Sample, times: _Times) -> otlp.NumberDataPoint:
    labels = dict(zip(metric.labels, sample.labels, strict=True))
    return otlp.NumberDataPoint(
        attributes=_attributes(labels),
        as_double=sample.value,
        start_time_unix_nano=times.start,
        time_unix_nano=times.now,
    )


def _spread(metric: catalog.Metric, spread: Spread, times: _Times) -> otlp.HistogramDataPoint:
    return otlp.HistogramDataPoint(
        attributes=_attributes(dict(zip(metric.labels, spread.labels, strict=True))),
        count=sum(spread.counts),
        sum=spread.total,
        bucket_counts=spread.counts,
        explicit_bounds=metric.buckets,
        start_time_unix_nano=times.start,
        time_unix_nano=times.now,
    )


def _attributes(values: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in values.items()]


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
