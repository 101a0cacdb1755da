"""What is counted: plain cells that events fill where they happen, and that are read when someone looks.

The identity that leaks are found by: every attempt to put an instance in place adds one to the swaps; every instance
that is disposed of, and every attempt that never had one, adds one to the cleanups. So swaps minus cleanups are the
instances that serve, wait in a pool, or leak.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from oneiric.core.domain import DOMAINS
from oneiric.observability.catalog import METRICS, OTHER

KEYS: Final = 200
"""Keys of one domain that are told apart."""
PROVIDERS: Final = 20
"""Providers of one key that are told apart."""


_RESOLUTIONS: Final = "oneiric_resolution_total"
_SWAPS: Final = "oneiric_lifecycle_swap_total"
_SWAP_FAILURES: Final = "oneiric_lifecycle_swap_failures_total"
_HEALTH_FAILURES: Final = "oneiric_lifecycle_health_check_failures_total"


class Sample(NamedTuple):
    """The value of one counter or gauge; label values stand in the catalog's order."""

    metric: str
    labels: tuple[str, ...]
    value: float


class Spread(NamedTuple):
    """One histogram: how many fell into each bucket (not cumulative, +Inf last), and their sum."""

    metric: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    total: float


Reading = Sample | Spread


class Names:
    """The keys and providers that have series of their own: those known first, up to a bound; others are ``_other``."""

    def __init__(self) -> None:
        self._providers: dict[str, dict[str, set[str]]] = {}

    def admit(self, domain: str, key: str, provider: str = "") -> bool:
        """Tell *key*, and *provider* of it, apart from now on, if there is room; return whether that is new."""
        keys = self._providers.setdefault(domain, {})
        known = keys.get(key)
        if known is None:
            if len(keys) >= KEYS:
                return False
            keys[key] = {provider} if provider else set()
            return True
        if not provider or provider in known or len(known) >= PROVIDERS:
            return False
        known.add(provider)
        return True

    def key(self, domain: str, key: str) -> str:
        """Return the label for *key*."""
        return key if key in self._providers.get(domain, ()) else OTHER

    def provider(self, domain: str, key: str, provider: str) -> str:
        """Return the label for *provider*."""
        return provider if provider in self._providers.get(domain, {}).get(key, ()) else OTHER


class Meters:
    """Every counter and histogram of one process."""

    def __init__(self) -> None:
        self.names = Names()
        self._counts: dict[str, dict[tuple[str, ...], float]] = {
            name: {} for name, metric in METRICS.items() if metric.kind == "counter"
        }
        self._spreads: dict[str, dict[tuple[str, ...], list[float]]] = {
            name: {} for name, metric in METRICS.items() if metric.kind == "histogram"
        }
        for name, metric in METRICS.items():
            if metric.kind != "gauge" and None not in metric.labels.values():
                self._prepare(name, *(values or () for values in metric.labels.values()))
        self._prepare(_RESOLUTIONS, _values(_RESOLUTIONS, "outcome"), DOMAINS, (OTHER,))
        self._prepare(_SWAP_FAILURES, DOMAINS, (OTHER,), _values(_SWAP_FAILURES, "reason"))

    def admit(self, domain: str, key: str, provider: str = "") -> None:
        """Tell what is registered or configured apart, if there is room; what never happened to it reads 0."""
        if self.names.admit(domain, key, provider):
            self._prepare(_RESOLUTIONS, _values(_RESOLUTIONS, "outcome"), (domain,), (key,))
            if provider:
                self._prepare(_SWAPS, _values(_SWAPS, "outcome"), (domain,), (key,), (provider,))
                self._prepare(_HEALTH_FAILURES, (domain,), (key,), (provider,))

    def add(self, metric: str, *labels: str, by: float = 1) -> None:
        """Count *by* more of a counter."""
        cells = self._counts[metric]
        cells[labels] = cells.get(labels, 0) + by

    def observe(self, metric: str, value: float, *labels: str) -> None:
        """Put one value into a histogram."""
        buckets = METRICS[metric].buckets
        cells = self._spreads[metric].setdefault(labels, [0.0] * (len(buckets) + 2))
        cells[bisect_left(buckets, value)] += 1
        cells[-1] += value

    def count(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count what *event* reports."""
        rule = _RULES.get(event)
        if rule is not None:
            rule(self, fields)

    def read(self) -> tuple[Reading, ...]:
        """Return every counter and histogram."""
        counts = (
            Sample(metric, labels, value) for metric, cells in self._counts.items() for labels, value in cells.items()
        )
        spreads = (
            Spread(metric, labels, tuple(int(count) for count in cells[:-1]), cells[-1])
            for metric, by_labels in self._spreads.items()
            for labels, cells in by_labels.items()
        )
        return (*counts, *spreads)

    def _prepare(self, metric: str, *values: Iterable[str]) -> None:
        """Have a cell for each combination of label *values*."""
        combinations: list[tuple[str, ...]] = [()]
        for choices in values:
            combinations = [(*labels, value) for labels in combinations for value in choices]
        if metric in self._counts:
            for labels in combinations:
                self._counts[metric].setdefault(labels, 0)
        else:
            for labels in combinations:
                self._spreads[metric].setdefault(labels, [0.0] * (len(METRICS[metric].buckets) + 2))

    # What events count; each concerns a registered candidate, so its names may be told apart

    def _place(self, fields: Mapping[str, Any]) -> tuple[str, str, str]:
        domain, key, provider = fields["domain"], fields["key"], fields["provider"]
        self.admit(domain, key, provider)
        return domain, self.names.key(domain, key), self.names.provider(domain, key, provider)

    def _activated(self, fields: Mapping[str, Any]) -> None:
        domain, key, provider = self._place(fields)
        self.add(_SWAPS, "success", domain, key, provider)
        self.observe("oneiric_lifecycle_swap_duration_ms", fields["duration_ms"], domain)

    def _swap_failed(self, fields: Mapping[str, Any]) -> None:
        domain, key, provider = self._place(fields)
        outcome = "rollback" if fields["rolled_back"] else "failed"
        self.add(_SWAPS, outcome, domain, key, provider)
        self.add(_SWAP_FAILURES, domain, key, fields["reason"])
        self.observe("oneiric_lifecycle_swap_duration_ms", fields["duration_ms"], domain)
        if not fields["built"]:
            self.add("oneiric_lifecycle_cleanup_total", domain)

    def _reused(self, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_lifecycle_cleanup_total", fields["domain"])  # its wait in the pool is over

    def _cleaned(self, fields: Mapping[str, Any]) -> None:
        if not fields["aside"]:
            self.add("oneiric_lifecycle_cleanup_total", fields["domain"])

    def _not_cleaned(self, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_lifecycle_cleanup_failures_total", fields["domain"])

    def _unhealthy(self, fields: Mapping[str, Any]) -> None:
        self.add(_HEALTH_FAILURES, *self._place(fields))

    def _config_changed(self, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_config_changes_total", fields["domain"])

    def _digest_right(self, _fields: Mapping[str, Any]) -> None:
        self.add("oneiric_remote_digest_checks_total", "success")

    def _digest_wrong(self, _fields: Mapping[str, Any]) -> None:
        self.add("oneiric_remote_digest_checks_total", "failed")

    def _signature_right(self, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_remote_signature_checks_total", "success", fields["source"])

    def _signature_wrong(self, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_remote_signature_checks_total", "failed", fields["source"])

    def _synchronised(self, fields: Mapping[str, Any]) -> None:
        self._sync("success", fields)

    def _unchanged(self, fields: Mapping[str, Any]) -> None:
        self._sync("success", fields)
        self.add("oneiric_remote_sync_skipped_total", fields["source"], "not-modified")

    def _not_synchronised(self, fields: Mapping[str, Any]) -> None:
        self._sync("failed", fields)

    def _held_back(self, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_remote_sync_skipped_total", fields["source"], "circuit-open")

    def _sync(self, outcome: str, fields: Mapping[str, Any]) -> None:
        self.add("oneiric_remote_sync_total", outcome, fields["source"])
        self.observe("oneiric_remote_sync_duration_seconds", fields["duration_ms"] / 1000, fields["source"])


def _values(metric: str, label: str) -> tuple[str, ...]:
    return METRICS[metric].labels[label] or ()


_RULES: Final[Mapping[str, Callable[[Meters, Mapping[str, Any]], None]]] = {
    "instance-activated": Meters._activated,
    "swap-failed": Meters._swap_failed,
    "instance-reused": Meters._reused,
    "cleanup-complete": Meters._cleaned,
    "cleanup-failed": Meters._not_cleaned,
    "health-check-failed": Meters._unhealthy,
    "config-changed": Meters._config_changed,
    "digest-check-success": Meters._digest_right,
    "digest-check-failed": Meters._digest_wrong,
    "signature-check-success": Meters._signature_right,
    "signature-verification-failed": Meters._signature_wrong,
    "remote-sync-complete": Meters._synchronised,
    "remote-sync-unchanged": Meters._unchanged,
    "remote-sync-error": Meters._not_synchronised,
    "remote-sync-skipped": Meters._held_back,
}
