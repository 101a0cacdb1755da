"""Every event and every metric that Oneiric reports: fields, labels, buckets, outcomes and reasons, once.

Nothing is emitted that is not listed here, and a test sees to it that nothing is listed that is not emitted. Logs,
metrics, alerts, dashboards and the reference pages take their names from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from oneiric.core.domain import DOMAINS
from oneiric.observability.kinds import Group, Kind

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """One kind of event. Every field named is on every such event; a value may be empty, never absent."""

    name: str
    level: Level
    fields: tuple[str, ...]
    tells: str


_SLOT = ("domain", "key")
_INSTANCE = ("domain", "key", "provider")

EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        event.name: event
        for event in (
            Event(
                "resolver-decision", "info", (*_INSTANCE, "outcome", "error"), "who fills a slot, or why nobody does"
            ),
            Event("instance-activated", "info", (*_INSTANCE, "instance_id", "duration_ms"), "an instance now serves"),
            Event("health-check-failed", "warning", (*_INSTANCE, "error"), "a probe said no, failed or took too long"),
            Event(
                "swap-complete",
                "info",
                (*_INSTANCE, "previous_provider", "duration_ms", "gap_ms", "by"),
                "callers now use another instance",
            ),
            Event(
                "swap-soaking",
                "info",
                (*_INSTANCE, "previous_provider", "soak_ms"),
                "callers moved; the old instance takes over again if the new one turns unhealthy",
            ),
            Event(
                "swap-throttled",
                "warning",
                (*_INSTANCE, "reason", "delay_ms", "error"),
                "a slot swapped too often by itself; the last state asked for follows later",
            ),
            Event(
                "candidate-quarantined",
                "error",
                (*_INSTANCE, "error", "failures"),
                "a provider failed its probes again and again and may not be chosen",
            ),
            Event("candidate-released", "info", _INSTANCE, "a quarantined provider is well, or changed"),
            Event(
                "swap-failed",
                "error",
                (*_INSTANCE, "error", "reason", "duration_ms", "built", "rolled_back"),
                "a new instance did not take over",
            ),
            Event(
                "swap-rollback",
                "warning",
                (*_INSTANCE, "failed_provider", "error"),
                "the named provider still serves, the failed one was disposed of",
            ),
            Event("instance-reused", "info", (*_INSTANCE, "instance_id"), "an instance left its pool to serve again"),
            Event("cleanup-started", "info", (*_INSTANCE, "instance_id", "aside"), "a drained instance is closed"),
            Event(
                "cleanup-complete",
                "info",
                (*_INSTANCE, "instance_id", "aside", "duration_ms"),
                "an instance was closed; aside: it was never to serve",
            ),
            Event(
                "cleanup-failed",
                "error",
                (*_INSTANCE, "instance_id", "aside", "error"),
                "an instance could not be closed",
            ),
            Event(
                "instance-leaked",
                "warning",
                (*_INSTANCE, "instance_id", "leases", "error"),
                "an instance that should be gone is still held",
            ),
            Event("selection-pinned", "info", (*_INSTANCE, "by"), "an operator's choice was recorded"),
            Event("selection-unpinned", "info", (*_INSTANCE, "by"), "an operator's choice was taken back"),
            Event(
                "activity-changed", "info", (*_SLOT, "activity", "note", "by"), "a slot was paused, drained, resumed"
            ),
            Event("config-changed", "info", ("file", "domain"), "a settings file changed and was applied"),
            Event(
                "config-rejected", "error", ("file", "error"), "a settings change is invalid; the last good one stays"
            ),
            Event("config-held", "warning", ("setting", "error"), "a setting takes effect only at a restart"),
            Event("plugin-failed", "error", ("plugin", "distribution", "error"), "a plugin was kept out"),
            Event("plugin-unmatched", "warning", ("plugin", "error"), "plugins.disabled names what is not installed"),
            Event("control-request", "info", ("verb", "target", "uid", "pid", "outcome"), "someone used the socket"),
            Event("state-degraded", "error", ("error",), "the state directory cannot be written; nothing is lost yet"),
            Event("state-discarded", "error", ("file", "error"), "unreadable state was moved aside"),
            Event("watch-degraded", "warning", ("error",), "changes are found by polling only"),
            Event("watch-paused", "warning", ("by",), "settings changes are not applied until watch resume"),
            Event("watch-resumed", "info", ("by",), "settings changes are applied again"),
            Event(
                "remote-sync-complete",
                "info",
                ("source", "url", "manifest", "manifest_version", "entries", "fetched", "duration_ms"),
                "a manifest was accepted and its entries are on offer",
            ),
            Event(
                "remote-sync-unchanged",
                "debug",
                ("source", "url", "manifest", "manifest_version", "entries", "duration_ms"),
                "the manifest is the one in force",
            ),
            Event(
                "remote-sync-skipped",
                "debug",
                ("source", "url", "reason"),
                "nobody was asked: the circuit breaker is open",
            ),
            Event(
                "remote-sync-error",
                "error",
                ("source", "url", "error", "reason", "consecutive_failures", "circuit_breaker", "duration_ms"),
                "a synchronisation failed and changed nothing",
            ),
            Event(
                "remote-sync-warning",
                "warning",
                ("source", "url", "error"),
                "an accepted manifest is not as it should be",
            ),
            Event(
                "signature-verification-failed",
                "error",
                ("source", "key_id", "error"),
                "a manifest is not signed as the settings demand",
            ),
            Event(
                "signature-check-success",
                "debug",
                ("source", "key_id"),
                "a manifest is signed as the settings demand",
            ),
            Event(
                "digest-check-success",
                "info",
                ("artifact", "origin", "expected_digest", "actual_digest"),
                "an artifact is right",
            ),
            Event(
                "digest-check-failed",
                "error",
                ("artifact", "origin", "expected_digest", "actual_digest"),
                "an artifact is not what the manifest names; it was not used",
            ),
            Event(
                "remote-restored",
                "info",
                ("source", "manifest", "manifest_version", "entries", "error"),
                "the cached manifest is on offer, verified again, before the network was asked",
            ),
            Event(
                "remote-restore-failed",
                "error",
                ("source", "error", "reason"),
                "the cached manifest is no longer acceptable and is not on offer",
            ),
            Event(
                "circuit-breaker-changed",
                "warning",
                ("source", "state", "previous", "error"),
                "synchronisation pauses after failures, or goes on",
            ),
            Event(
                "metrics-export-failed",
                "warning",
                ("endpoint", "error", "failures"),
                "metrics could not be handed to the OpenTelemetry collector; counting goes on, and so do the attempts",
            ),
            Event("daemon-ready", "info", ("pid", "version", "socket", "http", "slots"), "the daemon serves"),
            Event("daemon-stopping", "info", ("pid", "cause"), "the daemon drains and stops"),
            Event("daemon-stopped", "info", ("pid", "unclosed", "duration_ms"), "every instance was dealt with"),
            Event("library-log", "warning", ("message", "exception"), "a library had something to say"),
            Event("task-failed", "error", ("task", "error"), "a background task raised and was started again"),
        )
    }
)


class Metric(NamedTuple):
    """One metric. ``labels`` maps each label to its closed set of values, or to None where the program's names fill it.

    ``group`` says where a person looks for it. Buckets are upper bounds, +Inf left out.
    """

    name: str
    kind: Kind
    labels: Mapping[str, tuple[str, ...] | None]
    tells: str
    group: Group
    buckets: tuple[float, ...] = ()


_DOMAIN: Final = tuple(DOMAINS)
_RESULT: Final = ("success", "failed")
RESOLUTION_FAILURES: Final = ("no-candidates", "all-shadowed", "unhealthy", "config", "unknown-key")
SWAP_OUTCOMES: Final = ("success", "failed", "rollback")
SWAP_FAILURES: Final = ("health-check", "factory", "timeout", "hook")
SOURCES: Final = ("remote", "adhoc")
"""The configured manifest and its mirrors, and any other URL that ``remote-sync --manifest`` named."""
OTHER: Final = "_other"
"""The label value of keys and providers that are not known, or beyond the number that is told apart."""

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_RANKING: Final = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5)
_SWAP_MS: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000)

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(
                "oneiric_resolution_total",
                "counter",
                {"outcome": _RESULT, "domain": _DOMAIN, "key": None},
                "questions who fills a slot that the running program asked: leases, resolve() and reconciliations",
                "resolution",
            ),
            Metric(
                "oneiric_resolution_failures_total",
                "counter",
                {"domain": _DOMAIN, "reason": RESOLUTION_FAILURES},
                "those of them that nobody could answer with an instance or a candidate, by why",
                "resolution",
            ),
            Metric(
                "oneiric_resolution_duration_seconds",
                "histogram",
                {"domain": _DOMAIN},
                "how long ranking the candidates of a slot took; answers that are remembered are sampled",
                "resolution",
                _RANKING,
            ),
            Metric(
                "oneiric_candidates",
                "gauge",
                {"domain": _DOMAIN, "state": ("active", "shadowed", "rejected")},
                "registered candidates, by what the resolver makes of them",
                "resolution",
            ),
            Metric(
                "oneiric_candidates_expected",
                "gauge",
                {"domain": _DOMAIN},
                "keys that settings select or an operator pinned, each of which should have an active candidate",
                "resolution",
            ),
            Metric(
                "oneiric_slots_unfilled",
                "gauge",
                {"domain": _DOMAIN},
                "slots that are selected, pinned or in use and that no candidate may fill",
                "resolution",
            ),
            Metric(
                "oneiric_plugins",
                "gauge",
                {"state": ("loaded", "failed")},
                "installed plugins, by whether they could be loaded",
                "resolution",
            ),
            Metric(
                "oneiric_lifecycle_swap_total",
                "counter",
                {"outcome": SWAP_OUTCOMES, "domain": _DOMAIN, "key": None, "provider": None},
                "attempts to put an instance in place, first activations included",
                "lifecycle",
            ),
            Metric(
                "oneiric_lifecycle_swap_failures_total",
                "counter",
                {"domain": _DOMAIN, "key": None, "reason": SWAP_FAILURES},
                "attempts that did not put their instance in place, by why",
                "lifecycle",
            ),
            Metric(
                "oneiric_lifecycle_swap_duration_ms",
                "histogram",
                {"domain": _DOMAIN},
                "milliseconds until callers had the new instance, or until the attempt was given up",
                "lifecycle",
                _SWAP_MS,
            ),
            Metric(
                "oneiric_lifecycle_active_instances",
                "gauge",
                {"domain": _DOMAIN},
                "instances that serve, or wait in a pool to serve again",
                "lifecycle",
            ),
            Metric(
                "oneiric_lifecycle_cleanup_total",
                "counter",
                {"domain": _DOMAIN},
                "completed disposals; swaps minus these are the instances that serve or leak",
                "lifecycle",
            ),
            Metric(
                "oneiric_lifecycle_cleanup_failures_total",
                "counter",
                {"domain": _DOMAIN},
                "disposals that raised or took too long",
                "lifecycle",
            ),
            Metric(
                "oneiric_lifecycle_health_check_failures_total",
                "counter",
                {"domain": _DOMAIN, "key": None, "provider": None},
                "probes that said no, raised or took too long",
                "lifecycle",
            ),
            Metric("oneiric_lifecycle_leases", "gauge", {"domain": _DOMAIN}, "leases held now", "lifecycle"),
            Metric(
                "oneiric_activity_components",
                "gauge",
                {"domain": _DOMAIN, "state": ("paused", "draining")},
                "slots that take no new leases because an operator said so",
                "lifecycle",
            ),
            Metric(
                "oneiric_remote_sync_total",
                "counter",
                {"outcome": _RESULT, "source": SOURCES},
                "synchronisations that were attempted",
                "remote",
            ),
            Metric(
                "oneiric_remote_sync_skipped_total",
                "counter",
                {"source": SOURCES, "reason": ("circuit-open", "not-modified")},
                "rounds that asked nobody, or found the manifest unchanged",
                "remote",
            ),
            Metric(
                "oneiric_remote_sync_duration_seconds",
                "histogram",
                {"source": SOURCES},
                "how long synchronisations took",
                "remote",
                _SECONDS,
            ),
            Metric(
                "oneiric_remote_last_sync_duration_seconds",
                "gauge",
                {"source": SOURCES},
                "how long the last synchronisation took",
                "remote",
            ),
            Metric(
                "oneiric_remote_refresh_interval_seconds",
                "gauge",
                {"source": SOURCES},
                "how long the settings have it wait between two synchronisations",
                "remote",
            ),
            Metric(
                "oneiric_remote_sync_consecutive_failures",
                "gauge",
                {"source": SOURCES},
                "synchronisations that failed since the last that succeeded; kept across restarts",
                "remote",
            ),
            Metric(
                "oneiric_remote_last_sync_timestamp_seconds",
                "gauge",
                {"source": SOURCES},
                "when the last synchronisation ended, as Unix time; 0 for never",
                "remote",
            ),
            Metric(
                "oneiric_remote_last_success_timestamp_seconds",
                "gauge",
                {"source": SOURCES},
                "when the last synchronisation succeeded, as Unix time; 0 for never",
                "remote",
            ),
            Metric(
                "oneiric_remote_manifest_expires_timestamp_seconds",
                "gauge",
                {"source": SOURCES},
                "when the manifest in force expires, as Unix time; 0 for never, or where none is in force",
                "remote",
            ),
            Metric(
                "oneiric_remote_circuit_breaker_open",
                "gauge",
                {"source": SOURCES},
                "1 while the circuit breaker keeps synchronisations back",
                "remote",
            ),
            Metric(
                "oneiric_remote_signature_required",
                "gauge",
                {"source": SOURCES},
                "1 when unsigned manifests are refused",
                "remote",
            ),
            Metric(
                "oneiric_remote_digest_checks_total",
                "counter",
                {"outcome": _RESULT},
                "artifacts compared with the digest that the manifest names",
                "remote",
            ),
            Metric(
                "oneiric_remote_signature_checks_total",
                "counter",
                {"outcome": _RESULT, "source": SOURCES},
                "manifests whose signatures were verified",
                "remote",
            ),
            Metric(
                "oneiric_remote_quarantined_artifacts",
                "gauge",
                {},
                "artifacts with a wrong digest, kept as evidence, that no right one has replaced",
                "remote",
            ),
            Metric("oneiric_cache_size_bytes", "gauge", {}, "bytes in the cache, looked at once a minute", "remote"),
            Metric("oneiric_cache_artifacts", "gauge", {}, "artifacts in the cache, looked at once a minute", "remote"),
            Metric(
                "oneiric_config_last_reload_successful",
                "gauge",
                {"domain": (*_DOMAIN, "app")},
                "0 while the settings file of a domain, or app.yml, is invalid and the last good settings stay",
                "settings",
            ),
            Metric(
                "oneiric_config_changes_total",
                "counter",
                {"domain": (*_DOMAIN, "app")},
                "changes of a settings file that were applied",
                "settings",
            ),
            Metric(
                "oneiric_event_loop_lag_seconds",
                "gauge",
                {},
                "by how much the event loop was late at worst in the last half minute",
                "process",
            ),
            Metric(
                "oneiric_doctor_findings",
                "gauge",
                {"runbook": ("1", "2", "3", "4", "5", "0"), "scenario": ("A", "B", "C", "D", "-")},
                "what the doctor finds, by runbook and scenario; 0 and - for what no scenario covers",
                "process",
            ),
            Metric("oneiric_build_info", "gauge", {"version": None}, "1; the label says which version runs", "process"),
        )
    }
)
