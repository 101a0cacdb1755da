"""The document of ``oneiric metrics`` as text: for each group what it comes to, then its metrics and their series."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from oneiric.cli.figures import combined, number, quantile, ratio, size, span
from oneiric.cli.output import safe

GROUPS: Final = ("resolution", "lifecycle", "remote", "settings", "process")
Labels = tuple[tuple[str, str], ...]

_SWAPS: Final = "oneiric_lifecycle_swap_total"
_CLEANUPS: Final = "oneiric_lifecycle_cleanup_total"
_ACTIVE: Final = "oneiric_lifecycle_active_instances"
_RESOLUTIONS: Final = "oneiric_resolution_total"
_SYNCS: Final = "oneiric_remote_sync_total"
_VALID: Final = "oneiric_config_last_reload_successful"
_YES_OR_NO: Final = (_VALID, "oneiric_remote_circuit_breaker_open", "oneiric_remote_signature_required")
# What is worth no line: of these it is 1 that goes without saying.
_GOOD_AT_ONE: Final = (_VALID, "oneiric_remote_signature_required")


class Readout:
    """One document of metrics, for reading.

    Args:
        previous: the document before it, which says how fast counters grow.
    """

    def __init__(self, document: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> None:
        self._document = document
        self._metrics = {row["name"]: row for row in document["metrics"]}
        self._series = _series(document)
        self._now = datetime.fromisoformat(document["at"]).timestamp()
        is_same = previous is not None and previous["started_at"] == document["started_at"]
        self._before = _series(previous) if previous is not None and is_same else {}
        self._elapsed = document["uptime"] - previous["uptime"] if previous is not None else 0.0

    def text(self, *, verbose: bool) -> str:
        """Return all of it; series that say nothing are left out unless *verbose*."""
        blocks = [f"since the start {span(self._document['uptime'])} ago, {self._document['started_at']}"]
        for group in GROUPS:
            names = [name for name, row in self._metrics.items() if row["group"] == group]
            if names:
                lines = [*_SUMMARIES[group](self), *self._metric_lines(names, verbose=verbose)]
                blocks.append("\n".join([group, *(f"  {line}" for line in lines or ["nothing yet"])]))
        return "\n\n".join(blocks)

    # What a group comes to

    def _total(self, metric: str, **labels: str) -> float:
        """Return the sum of the series of *metric* that have *labels*."""
        return sum(self._by(metric, "", **labels).values())

    def _by(self, metric: str, label: str, **labels: str) -> dict[str, float]:
        """Return the sums of *metric* by the values of *label*."""
        sums: dict[str, float] = {}
        for series, values in self._series.get(metric, {}).items():
            found = dict(series)
            if labels.items() <= found.items():
                sums[found.get(label, "")] = sums.get(found.get(label, ""), 0) + values["value"]
        return sums

    def _resolution(self) -> Iterator[str]:
        if _RESOLUTIONS in self._metrics:
            good, all_of_them = self._total(_RESOLUTIONS, outcome="success"), self._total(_RESOLUTIONS)
            if all_of_them:
                yield f"{ratio(good, all_of_them)} of {number(all_of_them)} questions who fills a slot were answered"
            else:
                yield "nobody asked yet who fills a slot"
        failing = {
            domain: count for domain, count in self._by(_RESOLUTIONS, "domain", outcome="failed").items() if count
        }
        if failing:
            yield f"failed: {_counts(failing)}; why: oneiric explain KEY --domain D"

    def _lifecycle(self) -> Iterator[str]:
        swaps = self._by(_SWAPS, "outcome")
        total = sum(swaps.values())
        if total:
            yield f"{ratio(swaps.get('success', 0), total)} of {number(total)} swaps succeeded: {_counts(swaps)}"
        elif _CLEANUPS in self._metrics:
            yield "no swap yet"
        if _CLEANUPS in self._metrics:
            yield from self._accounting()

    def _accounting(self) -> Iterator[str]:
        swaps, cleanups, active = (self._by(metric, "domain") for metric in (_SWAPS, _CLEANUPS, _ACTIVE))
        left = {d: swaps.get(d, 0) - cleanups.get(d, 0) - active.get(d, 0) for d in cleanups}
        sums = (sum(counts.values()) for counts in (swaps, cleanups, active, left))
        yield "{} swaps - {} cleanups - {} active = {} leaked".format(*map(number, sums))
        odd = {domain: count for domain, count in left.items() if count}
        if odd:
            yield f"leaked, or not closed yet: {_counts(odd)}; which: oneiric status"

    def _remote(self) -> Iterator[str]:
        good, total = self._total(_SYNCS, outcome="success"), self._total(_SYNCS)
        if total:
            yield f"{ratio(good, total)} of {number(total)} synchronisations succeeded"
        elif _SYNCS in self._metrics:
            yield "no synchronisation since the start"
        ended = self._total("oneiric_remote_last_sync_timestamp_seconds")
        if ended:
            failures = self._total("oneiric_remote_sync_consecutive_failures")
            how = f"failed, {number(failures)} in a row" if failures else "succeeded"
            yield f"last sync {span(max(self._now - ended, 0))} ago, {how}"
        if self._total("oneiric_remote_circuit_breaker_open"):
            yield "the circuit breaker is open: nobody is asked until it closes; at once: oneiric remote-sync --force"

    def _settings(self) -> Iterator[str]:
        if _VALID in self._metrics:
            wrong = [domain for domain, valid in self._by(_VALID, "domain").items() if not valid]
            yield f"invalid: {', '.join(wrong)}; why: oneiric config check" if wrong else "every settings file is valid"

    def _process(self) -> Iterator[str]:
        memory = self._total("process_resident_memory_bytes")
        if memory:
            yield f"memory {size(memory)}"

    # The metrics

    def _metric_lines(self, names: list[str], *, verbose: bool) -> Iterator[str]:
        rows: list[tuple[str, str, str]] = []
        for name in names:
            found = [
                (_label(series), *self._words(name, series, values))
                for series, values in self._series.get(name, {}).items()
                if verbose or not _goes_without_saying(name, values)
            ]
            if found:
                rows += [(f"{name}: {self._metrics[name]['tells']}", "", ""), *found]
        width = max((len(label) for label, value, _ in rows if value), default=0)
        figures = max((len(value) for _, value, rate in rows if rate), default=0)
        for label, value, rate in rows:
            yield f"  {label.ljust(width)}  {value.rjust(figures)}  {rate}".rstrip() if value else label

    def _words(self, name: str, series: Labels, values: Mapping[Any, float]) -> tuple[str, str]:
        """Return the value of one series and how fast it grows."""
        kind = self._metrics[name]["type"]
        if kind == "histogram":
            return _spread(name, values), self._rate(name, series, values, "count")
        value = values["value"]
        if kind == "counter":
            return span(value) if name.endswith("_seconds_total") else number(value), self._rate(name, series, values)
        return _gauge(name, value, self._now), ""

    def _rate(self, name: str, series: Labels, values: Mapping[Any, float], which: str = "value") -> str:
        before = self._before.get(name, {}).get(series)
        if before is None or self._elapsed <= 0:
            return ""
        return f"{number(round((values[which] - before[which]) / self._elapsed, 2))}/s"


_SUMMARIES: Final = {
    "resolution": Readout._resolution,
    "lifecycle": Readout._lifecycle,
    "remote": Readout._remote,
    "settings": Readout._settings,
    "process": Readout._process,
}


def _series(document: Mapping[str, Any]) -> dict[str, dict[Labels, dict[Any, float]]]:
    """Return the samples by metric and labels: a ``value``, or ``count``, ``sum`` and counts by upper bound."""
    found: dict[str, dict[Labels, dict[Any, float]]] = {}
    for sample in document["samples"]:
        metric, labels = sample["metric"], dict(sample["labels"])
        part: Any = sample["name"].removeprefix(metric).lstrip("_") or "value"
        if part == "bucket":
            part = float(labels.pop("le"))
        found.setdefault(metric, {}).setdefault(tuple(labels.items()), {})[part] = sample["value"]
    return found


def _label(series: Labels) -> str:
    labels = dict(series)
    place = "/".join(labels.pop(name) for name in ("domain", "key") if name in labels)
    who = [labels.pop(name) for name in ("provider", "source") if name in labels]
    return safe(" ".join(filter(None, (place, *who, *labels.values())))) or "all"


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{number(count)} {safe(name)}" for name, count in counts.items())


def _goes_without_saying(name: str, values: Mapping[Any, float]) -> bool:
    if name in _GOOD_AT_ONE:
        return values["value"] == 1
    return not values.get("count", values.get("value"))


def _gauge(name: str, value: float, now: float) -> str:
    if name in _YES_OR_NO:
        return "yes" if value else "no"
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith(("_timestamp_seconds", "_time_seconds")):
        if not value:
            return "never"
        return f"{span(now - value)} ago" if value <= now else f"in {span(value - now)}"
    return span(value) if name.endswith("_seconds") else number(value)


def _spread(name: str, values: Mapping[Any, float]) -> str:
    count = values["count"]
    if not count:
        return "none"
    buckets = combined([{bound: number for bound, number in values.items() if isinstance(bound, float)}])
    unit = 0.001 if name.endswith("_ms") else 1.0
    shares = []
    for share in (0.5, 0.95):
        found = quantile(share, buckets)
        shares.append(f"over {span(buckets[-2][0] * unit)}" if math.isinf(found) else span(found * unit))
    return f"{number(count)}, p50 {shares[0]}, p95 {shares[1]}, mean {span(values['sum'] / count * unit)}"
