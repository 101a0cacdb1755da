"""Meters: what an event counts, what reads 0 before it happened, and which names are told apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.domain import DOMAINS
from oneiric.observability.catalog import EVENTS, METRICS, OTHER
from oneiric.observability.meters import KEYS, PROVIDERS, Meters, Names, Sample, Spread

NAMED = {"domain": "adapter", "key": "cache", "provider": "redis"}
FACTS = {**NAMED, "duration_ms": 30.0, "source": "remote", "aside": False, "built": True, "rolled_back": True}
FACTS |= {"reason": "health-check"}


def counted(meters: Meters) -> dict[tuple[str, ...], float]:
    """Return every counter that is not 0, by its name and labels."""
    read = (reading for reading in meters.read() if isinstance(reading, Sample) and reading.value)
    return {(reading.metric, *reading.labels): reading.value for reading in read}


def after(event: str, **fields: Any) -> dict[tuple[str, ...], float]:
    meters = Meters()
    meters.count(event, {**FACTS, **fields})
    return counted(meters)


def sample(meters: Meters, metric: str, *labels: str) -> float | None:
    values = [r.value for r in meters.read() if isinstance(r, Sample) and (r.metric, *r.labels) == (metric, *labels)]
    return values[0] if values else None


SWAPS = "oneiric_lifecycle_swap_total"
CLEANUPS = ("oneiric_lifecycle_cleanup_total", "adapter")
EVERY = {
    "instance-activated": {(SWAPS, "success", *NAMED.values()): 1},
    "instance-reused": {CLEANUPS: 1},
    "cleanup-complete": {CLEANUPS: 1},
    "cleanup-failed": {("oneiric_lifecycle_cleanup_failures_total", "adapter"): 1},
    "health-check-failed": {("oneiric_lifecycle_health_check_failures_total", *NAMED.values()): 1},
    "swap-failed": {
        (SWAPS, "rollback", *NAMED.values()): 1,
        ("oneiric_lifecycle_swap_failures_total", "adapter", "cache", "health-check"): 1,
    },
    "config-changed": {("oneiric_config_changes_total", "adapter"): 1},
    "digest-check-success": {("oneiric_remote_digest_checks_total", "success"): 1},
    "digest-check-failed": {("oneiric_remote_digest_checks_total", "failed"): 1},
    "signature-check-success": {("oneiric_remote_signature_checks_total", "success", "remote"): 1},
    "signature-verification-failed": {("oneiric_remote_signature_checks_total", "failed", "remote"): 1},
    "remote-sync-complete": {("oneiric_remote_sync_total", "success", "remote"): 1},
    "remote-sync-unchanged": {
        ("oneiric_remote_sync_total", "success", "remote"): 1,
        ("oneiric_remote_sync_skipped_total", "remote", "not-modified"): 1,
    },
    "remote-sync-error": {("oneiric_remote_sync_total", "failed", "remote"): 1},
    "remote-sync-skipped": {("oneiric_remote_sync_skipped_total", "remote", "circuit-open"): 1},
}


@pytest.mark.parametrize("event", EVENTS)
def test_event_counts_what_it_reports_and_nothing_else(event: str) -> None:
    assert after(event) == EVERY.get(event, {})


def test_attempt_that_left_nobody_serving_is_failed() -> None:
    assert after("swap-failed", rolled_back=False)[SWAPS, "failed", *NAMED.values()] == 1


def test_attempt_that_never_had_an_instance_disposed_of_it_too() -> None:
    assert after("swap-failed", built=False, rolled_back=False)[CLEANUPS] == 1


def test_instance_that_was_never_to_serve_is_no_disposal() -> None:
    assert after("cleanup-complete", aside=True) == {}


@pytest.mark.parametrize(("duration_ms", "bucket"), [(0.5, 0), (1, 0), (1.1, 1), (10_000, 11), (10_001, 12), (9e9, 15)])
def test_duration_falls_into_the_bucket_that_holds_it(duration_ms: float, bucket: int) -> None:
    meters = Meters()
    meters.observe("oneiric_lifecycle_swap_duration_ms", duration_ms, "adapter")
    (spread,) = [r for r in meters.read() if isinstance(r, Spread) and r.labels == ("adapter",) and r.total]
    assert [number for number, count in enumerate(spread.counts) if count] == [bucket]


@given(st.lists(st.floats(0, 1e6)))
def test_histogram_holds_every_value_once(values: list[float]) -> None:
    meters = Meters()
    for value in values:
        meters.observe("oneiric_remote_sync_duration_seconds", value, "remote")
    (spread,) = [r for r in meters.read() if isinstance(r, Spread) and r.labels == ("remote",)]
    assert (sum(spread.counts), spread.total) == (len(values), pytest.approx(sum(values)))


def test_every_counter_reads_zero_before_anything_happened() -> None:
    meters = Meters()
    meters.admit("adapter", "cache", "redis")
    assert {reading.metric for reading in meters.read()} == {
        name for name, metric in METRICS.items() if metric.kind != "gauge"
    }


def test_first_failure_of_a_registered_provider_had_a_zero_before_it() -> None:
    meters = Meters()
    meters.admit("adapter", "cache", "redis")
    assert [sample(meters, SWAPS, outcome, *NAMED.values()) for outcome in ("success", "failed", "rollback")] == [0] * 3


def test_first_failure_of_an_unknown_key_had_a_zero_before_it() -> None:
    assert [sample(Meters(), "oneiric_resolution_total", "failed", domain, OTHER) for domain in DOMAINS] == [0] * 6


@pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.kind != "gauge"], ids=lambda m: m.name)
def test_labels_are_those_of_the_catalog(metric: Any) -> None:
    meters = Meters()
    meters.admit("adapter", "cache", "redis")
    labels = [reading.labels for reading in meters.read() if reading.metric == metric.name]
    choices = [
        (*(values or ()), *(NAMED.values() if values is None else ()), OTHER) for values in metric.labels.values()
    ]
    assert all(value in allowed for found in labels for value, allowed in zip(found, choices, strict=True))


def test_keys_beyond_the_bound_are_one_series() -> None:
    names = Names()
    for number in range(KEYS + 50):
        names.admit("adapter", f"key-{number}")
    assert [names.key("adapter", f"key-{number}") for number in (0, KEYS - 1, KEYS)] == [
        "key-0",
        f"key-{KEYS - 1}",
        OTHER,
    ]


def test_providers_beyond_the_bound_are_one_series() -> None:
    names = Names()
    for number in range(PROVIDERS + 5):
        names.admit("adapter", "cache", f"p{number}")
    assert [names.provider("adapter", "cache", f"p{n}") for n in (0, PROVIDERS)] == ["p0", OTHER]


def test_bound_is_each_domain_s_own() -> None:
    names = Names()
    for number in range(KEYS):
        names.admit("adapter", f"key-{number}")
    names.admit("service", "status")
    assert names.key("service", "status") == "status"


def test_unknown_key_is_never_a_label() -> None:
    assert (Names().key("adapter", "evil"), Names().provider("adapter", "evil", "x")) == (OTHER, OTHER)
