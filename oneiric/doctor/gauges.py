"""Findings as a metric, so that an alert can name the scenario that applies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from oneiric.doctor.finding import SCENARIOS, Finding
from oneiric.observability.meters import Sample

METRIC: Final = "oneiric_doctor_findings"
_OTHER: Final = ("0", "-")


def finding_gauges(findings: Iterable[Finding]) -> tuple[Sample, ...]:
    """Return how many of *findings* belong to each scenario, 0 where none does; ``0`` and ``-`` are those outside."""
    counted = Counter(tuple(one.code) if one.code in SCENARIOS else _OTHER for one in findings)
    labels = (*map(tuple, SCENARIOS), _OTHER)
    return tuple(Sample(METRIC, (runbook, scenario), counted[runbook, scenario]) for runbook, scenario in labels)
