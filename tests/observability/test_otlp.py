"""Readings as a collector decodes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from oneiric.observability.catalog import METRICS
from oneiric.observability.meters import Meters, Reading, Sample, Spread
from oneiric.observability.otlp import export_request, refused

STARTED = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
RESOURCE = {"service.name": "oneiric", "service.version": "1.2", "service.instance.id": "x"}
SWAPPED = Sample("oneiric_lifecycle_swap_total", ("success", "adapter", "cache", "redis"), 3)
ACTIVE = Sample("oneiric_lifecycle_active_instances", ("adapter",), 2)
TOOK = Spread("oneiric_lifecycle_swap_duration_ms", ("adapter",), (1, 2, *[0] * 13, 4), 9.5)


def sent(*readings: Reading) -> Any:
    request = ExportMetricsServiceRequest()
    request.ParseFromString(export_request(readings, resource=RESOURCE, started_at=STARTED, now=NOW))
    (resource,) = request.resource_metrics
    return resource


def metric(reading: Reading) -> Any:
    (scope,) = sent(reading).scope_metrics
    (found,) = scope.metrics
    return found


def named(attributes: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}


def test_resource_says_who_reports() -> None:
    assert named(sent(ACTIVE).resource.attributes) == RESOURCE


def test_counter_is_a_cumulative_monotonic_sum() -> None:
    found = metric(SWAPPED)
    assert found.WhichOneof("data") == "sum"
    assert (found.sum.is_monotonic, found.sum.aggregation_temporality) == (True, AGGREGATION_TEMPORALITY_CUMULATIVE)


def test_counter_has_its_value_and_its_labels() -> None:
    (point,) = metric(SWAPPED).sum.data_points
    assert point.as_double == 3
    names = ("outcome", "domain", "key", "provider")
    assert named(point.attributes) == dict(zip(names, SWAPPED.labels, strict=True))


def test_counter_says_since_when_it_counts_and_when_it_was_read() -> None:
    (point,) = metric(SWAPPED).sum.data_points
    assert point.start_time_unix_nano == 1_772_366_400_000_000_000
    assert point.time_unix_nano == 1_772_366_400_250_000_000


def test_gauge_is_a_gauge() -> None:
    found = metric(ACTIVE)
    assert found.WhichOneof("data") == "gauge"
    assert found.gauge.data_points[0].as_double == 2


def test_histogram_has_the_catalogs_bounds_and_counts_that_are_not_cumulative() -> None:
    (point,) = metric(TOOK).histogram.data_points
    assert tuple(point.explicit_bounds) == METRICS[TOOK.metric].buckets
    assert (tuple(point.bucket_counts), point.count, point.sum) == (TOOK.counts, 7, 9.5)


def test_histogram_is_cumulative_in_time() -> None:
    assert metric(TOOK).histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE


@pytest.mark.parametrize("reading", [SWAPPED, ACTIVE, TOOK], ids=lambda reading: reading.metric)
def test_metric_has_the_catalogs_name_and_meaning_and_no_unit(reading: Reading) -> None:
    found = metric(reading)
    assert (found.name, found.description, found.unit) == (reading.metric, METRICS[reading.metric].tells, "")


def test_series_of_one_metric_travel_together() -> None:
    readings = Meters().read()
    (scope,) = sent(*readings).scope_metrics
    names = [found.name for found in scope.metrics]
    assert len(names) == len(set(names))
    points = sum(len(getattr(found, found.WhichOneof("data")).data_points) for found in scope.metrics)
    assert points == len(readings)


def test_answer_without_words_refuses_nothing() -> None:
    assert refused(b"") == ""


def test_answer_that_takes_a_part_says_what_was_refused() -> None:
    partial = ExportMetricsPartialSuccess(rejected_data_points=2, error_message="too old")
    answer = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    assert refused(answer) == "2 data points were refused: too old"


def test_answer_of_something_else_is_no_answer() -> None:
    with pytest.raises(ValueError, match="not that of a collector"):
        refused(b"<html>")
