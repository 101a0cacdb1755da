"""The Prometheus text format, read back by the library that Prometheus' own users read it with."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

from oneiric.observability.catalog import METRICS
from oneiric.observability.exposition import expose
from oneiric.observability.meters import Meters, Reading, Sample, Spread


def exposed(*readings: Reading) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what a scrape would find, by name and labels."""
    families = text_string_to_metric_families(expose(readings).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_sample_has_its_labels_in_place() -> None:
    found = exposed(Sample("oneiric_resolution_total", ("failed", "adapter", "cache"), 3))
    assert found["oneiric_resolution_total", (("domain", "adapter"), ("key", "cache"), ("outcome", "failed"))] == 3


def test_sample_without_labels_is_exposed() -> None:
    assert exposed(Sample("oneiric_cache_size_bytes", (), 17.0))["oneiric_cache_size_bytes", ()] == 17


def test_histogram_is_cumulative() -> None:
    counts = (1, 2, *[0] * 7, 3, 4)
    found = exposed(Spread("oneiric_remote_sync_duration_seconds", ("remote",), counts, 99.5))
    name = "oneiric_remote_sync_duration_seconds_bucket"
    by_bound = {float(dict(labels)["le"]): value for (metric, labels), value in found.items() if metric == name}
    assert [by_bound[bound] for bound in (0.05, 0.1, 30.0, 60.0, math.inf)] == [1, 3, 3, 6, 10]


def test_histogram_has_its_sum() -> None:
    found = exposed(Spread("oneiric_remote_sync_duration_seconds", ("remote",), (0,) * 11, 99.5))
    assert found["oneiric_remote_sync_duration_seconds_sum", (("source", "remote"),)] == 99.5


def test_every_metric_is_exposed_with_what_it_means() -> None:
    page = expose(Meters().read()).decode()
    missing = [name for name, metric in METRICS.items() if f"# HELP {name} {metric.tells}\n" not in page]
    assert missing == []


def test_hostile_label_stays_one_line() -> None:
    page = expose([Sample("oneiric_build_info", ('1"} 5\noneiric_evil 1',), 1)]).decode()
    assert "\noneiric_evil" not in page


def test_process_is_exposed_too() -> None:
    assert exposed()["process_resident_memory_bytes", ()] > 2**20
