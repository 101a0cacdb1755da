"""From readings to the document of ``oneiric metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, ProcessCollector

from oneiric.api.schemas import MetricRow, MetricsDocument, SampleRow
from oneiric.api.views import instant
from oneiric.observability.catalog import METRICS
from oneiric.observability.kinds import Kind
from oneiric.observability.meters import Reading, Spread


def metrics_document(
    readings: Iterable[Reading],
    *,
    started_at: datetime,
    now: datetime | None = None,
    domain: str | None = None,
    group: str | None = None,
) -> MetricsDocument:
    """Return *readings*, and ``process_*`` of this process, of one domain and one group where these are given."""
    now = datetime.now(UTC) if now is None else now
    rows = {
        name: MetricRow(name=name, type=metric.kind, group=metric.group, tells=metric.tells)
        for name, metric in METRICS.items()
    }
    samples = [sample for reading in readings for sample in _samples(reading)]
    if group in (None, "process") and domain is None:
        for row, sample in _of_process():
            rows[row.name] = row
            samples.append(sample)
    names = {name for name, row in rows.items() if group in (None, row.group)}
    chosen = tuple(s for s in samples if s.metric in names and (domain is None or s.labels.get("domain") == domain))
    seen = {sample.metric for sample in chosen}
    return MetricsDocument(
        at=instant(now),
        started_at=instant(started_at),
        uptime=round(max((now - started_at).total_seconds(), 0.0), 3),
        metrics=tuple(row for name, row in rows.items() if name in seen),
        samples=chosen,
    )


def _samples(reading: Reading) -> Iterator[SampleRow]:
    name = reading.metric
    metric = METRICS[name]
    labels = dict(zip(metric.labels, reading.labels, strict=True))
    if not isinstance(reading, Spread):
        yield SampleRow(metric=name, name=name, labels=labels, value=reading.value)
        return
    count = 0
    for bound, more in zip((*metric.buckets, float("inf")), reading.counts, strict=True):
        count += more
        text = "+Inf" if bound == float("inf") else str(float(bound))
        yield SampleRow(metric=name, name=f"{name}_bucket", labels={**labels, "le": text}, value=count)
    yield SampleRow(metric=name, name=f"{name}_count", labels=labels, value=count)
    yield SampleRow(metric=name, name=f"{name}_sum", labels=labels, value=reading.total)


def _of_process() -> Iterator[tuple[MetricRow, SampleRow]]:
    for family in ProcessCollector(registry=CollectorRegistry()).collect():
        kind: Kind = "counter" if family.type == "counter" else "gauge"
        for sample in family.samples:
            row = MetricRow(
                name=sample.name, type=kind, group="process", tells=family.documentation.rstrip(".").lower()
            )
            yield row, SampleRow(metric=sample.name, name=sample.name, labels={}, value=sample.value)
