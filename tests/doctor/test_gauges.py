"""Findings as a metric, and the runbook's formula for memory."""

from __future__ import annotations

import pytest

from oneiric.doctor.finding import SCENARIOS, Finding
from oneiric.doctor.gauges import METRIC, finding_gauges
from oneiric.doctor.sizing import INSTANCE_MB, OVERHEAD_MB, size_for
from oneiric.lifecycle.memory import ESTIMATE_BYTES, OVERHEAD_BYTES
from oneiric.observability.catalog import METRICS
from tests.doctor.commands import untypeable


def finding(code: str, subject: str = "") -> Finding:
    return Finding(code=code, priority="P1", title="x", subject=subject)


def values(*findings: Finding) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in finding_gauges(findings)}


def test_every_scenario_is_0_when_nothing_is_found() -> None:
    assert values() == {**dict.fromkeys(map(tuple, SCENARIOS), 0), ("0", "-"): 0}


def test_findings_are_counted_by_scenario() -> None:
    counted = values(finding("1A", "adapter/a"), finding("1A", "adapter/b"), finding("5D"))
    assert {labels: value for labels, value in counted.items() if value} == {("1", "A"): 2, ("5", "D"): 1}


def test_findings_outside_the_runbook_are_counted_together() -> None:
    assert values(finding("disk"), finding("daemon"))["0", "-"] == 2


def test_samples_have_labels_that_the_catalog_lists() -> None:
    runbooks, scenarios = METRICS[METRIC].labels.values()
    samples = finding_gauges(())
    assert {sample.labels[0] for sample in samples} == set(runbooks or ())
    assert {sample.labels[1] for sample in samples} == set(scenarios or ())


@pytest.mark.parametrize(
    ("instances", "formula", "limit"),
    [(1, "1 * 50 MB + 500 MB = 550 MB (0.55 GB)", 1), (200, "200 * 50 MB + 500 MB = 10500 MB (10.5 GB)", 12)],
)
def test_size_is_that_of_the_runbook(instances: int, formula: str, limit: int) -> None:
    size = size_for(instances)
    assert (size.formula, size.limit_gib) == (formula, limit)


def test_size_has_a_command_for_each_place_it_may_run_at() -> None:
    assert list(size_for(200).commands) == ["docker", "systemd", "kubernetes"]
    assert untypeable(size_for(200).commands.values()) == []


def test_formula_reckons_as_status_does() -> None:
    assert (INSTANCE_MB << 20, OVERHEAD_MB << 20) == (ESTIMATE_BYTES, OVERHEAD_BYTES)
