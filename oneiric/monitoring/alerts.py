"""Every alert: when it fires, what it means, what clears it, and where the runbook treats it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from oneiric.monitoring.profiles import Profile

Severity = Literal["critical", "warning", "info", "none"]
Component = Literal["resolution", "lifecycle", "remote", "security", "settings", "daemon"]

INCIDENTS: Final = "docs/runbooks/INCIDENT_RESPONSE.md"
TROUBLE: Final = "docs/runbooks/TROUBLESHOOTING.md"
_RUNBOOKS: Final = {
    1: "runbook-1-resolution-failures",
    2: "runbook-2-hot-swap-failures",
    3: "runbook-3-remote-sync-failures",
    4: "runbook-4-cache-corruption",
    5: "runbook-5-memory-exhaustion",
}
_DASHBOARDS: Final = {
    "resolution": "oneiric-resolution",
    "settings": "oneiric-resolution",
    "lifecycle": "oneiric-lifecycle",
    "remote": "oneiric-remote",
    "security": "oneiric-remote",
    "daemon": "oneiric-performance",
}


class Alert(NamedTuple):
    """One alert. ``runbook`` is the incident runbook's number, 0 where only the troubleshooting guide treats it.

    ``hold`` says how long the condition must hold, by a word of the profile or as a duration. ``priority`` is the
    runbook's, by which it is routed.
    """

    name: str
    expression: str
    hold: str
    severity: Severity
    priority: str
    component: Component
    runbook: int
    summary: str
    description: str
    clears_when: str
    dashboard: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def anchor(self) -> str:
        """Where the documentation treats it: a file and an anchor, relative to the repository."""
        return f"{INCIDENTS}#{_RUNBOOKS[self.runbook]}" if self.runbook else f"{TROUBLE}#{self.name.lower()}"

    @property
    def board(self) -> str:
        """The uid of the dashboard to look at."""
        return self.dashboard or _DASHBOARDS[self.component]


def alerts(profile: Profile) -> tuple[Alert, ...]:
    """Return every alert with the durations of *profile*."""
    return (*_of_runbooks(profile), *_of_daemon(profile), *_of_resolution(profile), *_burns(profile))


def _of_runbooks(profile: Profile) -> Iterator[Alert]:
    window = profile.window
    failed = 'oneiric_resolution_total{outcome="failed"}'
    yield Alert(
        "OneiricResolutionFailureRateHigh",
        f"(sum by (domain) (rate({failed}[{window}])) / sum by (domain) (rate(oneiric_resolution_total[{window}]))"
        " > 0.05) and on () (1 - oneiric:resolution_success_rate_global:5m) > 0.05",
        "soon",
        "critical",
        "P0",
        "resolution",
        1,
        "Oneiric resolution failure rate exceeds 5%",
        "{{ $value | humanizePercentage }} of the resolutions in domain {{ $labels.domain }} fail.",
        f"failures are below 5% of the last {window}",
    )
    tried = f"sum(increase(oneiric_lifecycle_swap_total[{window}]))"
    bad = f"sum(increase(oneiric_lifecycle_swap_total{{outcome!='success'}}[{window}]))"
    yield Alert(
        "OneiricLifecycleSwapFailureRateHigh",
        "(1 - oneiric:lifecycle_swap_success_rate:5m) > 0.10",
        "soon",
        "critical",
        "P0",
        "lifecycle",
        2,
        "Oneiric swap failure rate exceeds 10%",
        f"{_number(bad)} of {_number(tried)} attempts to put an instance in place failed in {window}: "
        "{{ $value | humanizePercentage }}. One that fails alone is 100%.",
        f"the failed attempt is more than {window} ago, or nine have succeeded for each that failed",
    )
    yield Alert(
        "OneiricRemoteSyncConsecutiveFailures",
        "max by (source) (oneiric_remote_sync_consecutive_failures) >= 3",
        "at once",
        "critical",
        "P1",
        "remote",
        3,
        "Remote sync failed 3+ consecutive times",
        "{{ $value }} synchronisations of {{ $labels.source }} failed in a row; what serves is kept.",
        "a synchronisation of the same source succeeds",
    )
    wrong = f'sum(increase(oneiric_remote_digest_checks_total{{outcome="failed"}}[{window}])) > 0'
    yield Alert(
        "OneiricDigestVerificationFailed",
        f"{wrong} or max(oneiric_remote_quarantined_artifacts) > 0",
        "at once",
        "critical",
        "P0",
        "security",
        4,
        "Artifact digest verification failed",
        "An artifact is not what the manifest names. It was not used; the evidence is in the cache's quarantine.",
        f"a synchronisation succeeded since, and no check failed for {window}",
    )
    yield Alert(
        "OneiricActiveInstancesExtremelyHigh",
        "oneiric:system_active_instances_total:5m >= 200",
        "lasting",
        "critical",
        "P0",
        "lifecycle",
        5,
        "200+ active instances, risk of memory exhaustion",
        "{{ $value }} instances are active.",
        "fewer than 200 instances are active",
        "oneiric-performance",
    )
    yield Alert(
        "OneiricSignatureVerificationFailed",
        f'sum by (source) (increase(oneiric_remote_signature_checks_total{{outcome="failed"}}[{window}])) > 0',
        "at once",
        "critical",
        "P0",
        "security",
        3,
        "Manifest signature verification failed",
        "A manifest of {{ $labels.source }} is not signed as the settings demand: a new key, a mistake, or an attack.",
        f"no signature was refused for {window}",
    )


def _of_daemon(profile: Profile) -> Iterator[Alert]:
    yield Alert(
        "OneiricDown",
        'absent(up{job="oneiric"} == 1)',
        "patient",
        "critical",
        "P0",
        "daemon",
        0,
        "Oneiric is down",
        "Prometheus cannot scrape any Oneiric daemon. Other alerts about it say nothing meanwhile.",
        "the daemon is scraped again",
    )
    yield Alert(
        "Watchdog",
        "vector(1)",
        "at once",
        "none",
        "P3",
        "daemon",
        0,
        "Alerting works",
        "Always fires, so that a silent pipeline can be told from a healthy one.",
        "never",
    )
    yield Alert(
        "OneiricRestarted",
        f'time() - process_start_time_seconds{{job="oneiric"}} < {profile.restarted}',
        "at once",
        "info",
        "P3",
        "daemon",
        0,
        "Oneiric has restarted",
        "The daemon started {{ $value | humanizeDuration }} ago; its counters begin at 0.",
        f"{profile.restarted} s after the start",
    )
    yield Alert(
        "OneiricEventLoopLag",
        "max(oneiric_event_loop_lag_seconds) > 1",
        "lasting",
        "warning",
        "P2",
        "daemon",
        0,
        "Oneiric's event loop is late",
        "Everything waits up to {{ $value | humanizeDuration }} for the event loop: something blocks it.",
        "the loop was less than 1 s late for half a minute",
    )
    yield Alert(
        "OneiricMemoryGrowing",
        f'(process_resident_memory_bytes{{job="oneiric"}} - process_resident_memory_bytes{{job="oneiric"}} offset '
        f"{profile.growth} > 67108864) and (process_resident_memory_bytes / process_resident_memory_bytes offset "
        f"{profile.growth} > 1.2) and on () (sum(oneiric_lifecycle_active_instances) <= "
        f"sum(oneiric_lifecycle_active_instances offset {profile.growth}))",
        "lasting",
        "warning",
        "P2",
        "daemon",
        5,
        "Memory grows while the number of instances does not",
        f"The process has {{{{ $value | humanize1024 }}}}B more than {profile.growth} ago with no more instances.",
        f"memory has not grown by 20% and 64 MiB in {profile.growth}",
    )
    yield Alert(
        "OneiricConfigInvalid",
        "oneiric_config_last_reload_successful == 0",
        "at once",
        "critical",
        "P1",
        "settings",
        1,
        "Oneiric settings are invalid",
        "The settings of {{ $labels.domain }} are invalid; the last good ones stay in force. A restart would fail.",
        "valid settings are read",
    )


def _of_resolution(profile: Profile) -> Iterator[Alert]:
    window = profile.window
    yield Alert(
        "OneiricLowCandidateCount",
        "sum by (domain) (oneiric_slots_unfilled) > 0 or (sum by (domain) "
        '(oneiric_candidates{state="active"}) == 0 and sum by (domain) (oneiric_candidates_expected) > 0)',
        "patient",
        "warning",
        "P2",
        "resolution",
        1,
        "A slot that somebody wants has no candidate",
        "Domain {{ $labels.domain }} has slots that are selected, pinned or in use and that no candidate may fill.",
        "every such slot has a candidate",
    )
    yield Alert(
        "OneiricHealthCheckFailures",
        f"sum by (domain, key, provider) (increase(oneiric_lifecycle_health_check_failures_total[{window}])) >= 3",
        "lasting",
        "warning",
        "P2",
        "lifecycle",
        1,
        "Health checks fail",
        "{{ $labels.provider }} in {{ $labels.domain }}/{{ $labels.key }} fails its health checks.",
        f"fewer than 3 checks failed in {window}",
    )
    yield Alert(
        "OneiricRollbackRateHigh",
        f'sum by (domain, key) (increase(oneiric_lifecycle_swap_total{{outcome="rollback"}}[{window}])) >= 3',
        "at once",
        "warning",
        "P2",
        "lifecycle",
        2,
        "A component was rolled back again and again",
        '{{ $labels.domain }}/{{ $labels.key }} was rolled back {{ $value | printf "%.0f" }} times.',
        f"fewer than 3 rollbacks in {window}",
    )
    yield Alert(
        "OneiricSwapDurationHigh",
        "histogram_quantile(0.95, sum by (le, domain) (rate(oneiric_lifecycle_swap_duration_ms_bucket"
        f"[{window}]))) > 10000",
        "lasting",
        "warning",
        "P1",
        "lifecycle",
        2,
        "Swaps take more than 10 s",
        "P95 of the swaps in domain {{ $labels.domain }} is {{ $value | humanize }} ms.",
        f"slow swaps are more than {window} ago",
    )
    yield Alert(
        "OneiricInstanceLeak",
        "sum(oneiric_lifecycle_swap_total) - sum(oneiric_lifecycle_cleanup_total)"
        " - sum(oneiric_lifecycle_active_instances) > 0",
        "lasting",
        "warning",
        "P2",
        "lifecycle",
        5,
        "Instances were not cleaned up",
        "{{ $value }} instances that should be gone are not; oneiric status names them.",
        "the last lease on them ends, or the daemon restarts",
        "oneiric-performance",
    )
    yield Alert(
        "OneiricRapidSwapping",
        f"sum by (domain, key) (increase(oneiric_lifecycle_swap_total[{window}])) >= 21",
        "at once",
        "warning",
        "P2",
        "lifecycle",
        5,
        "A component swaps again and again",
        '{{ $labels.domain }}/{{ $labels.key }} was swapped {{ $value | printf "%.0f" }} times.',
        f"at most 20 swaps in {window}",
        "oneiric-performance",
    )
    yield Alert(
        "OneiricActiveInstancesHigh",
        "oneiric:system_active_instances_total:5m >= 100",
        "lasting",
        "warning",
        "P2",
        "lifecycle",
        5,
        "100+ active instances",
        "{{ $value }} instances are active; at 200 memory may run out.",
        "fewer than 100 instances are active",
        "oneiric-performance",
    )
    yield Alert(
        "OneiricCircuitBreakerOpen",
        "max by (source) (oneiric_remote_circuit_breaker_open) == 1",
        "at once",
        "warning",
        "P2",
        "remote",
        3,
        "The circuit breaker is open",
        "Synchronisations of {{ $labels.source }} are held back after failures in a row.",
        "a synchronisation succeeds once remote.reset_timeout is over, or with --force",
    )
    yield Alert(
        "OneiricRemoteSyncStale",
        '(time() - oneiric_remote_last_success_timestamp_seconds{source="remote"})'
        f' > clamp_min(3 * oneiric_remote_refresh_interval_seconds{{source="remote"}}, {profile.stale})',
        "patient",
        "warning",
        "P2",
        "remote",
        3,
        "Remote sync is stale",
        "No synchronisation has succeeded{{ if lt $value 1e9 }} for {{ $value | humanizeDuration }}{{ end }}.",
        "a synchronisation succeeds",
    )
    yield Alert(
        "OneiricManifestExpiring",
        f"(oneiric_remote_manifest_expires_timestamp_seconds - time()) < {profile.expiring}"
        " and oneiric_remote_manifest_expires_timestamp_seconds > 0",
        "patient",
        "warning",
        "P2",
        "remote",
        0,
        "The manifest expires soon",
        "The manifest in force expires in {{ $value | humanizeDuration }}; its publisher has to sign a new one.",
        "a manifest that expires later is accepted",
    )


def _burns(profile: Profile) -> Iterator[Alert]:
    """Yield the multi-window burn rates of a 99% objective (Google SRE workbook, chapter 5)."""
    factors: tuple[tuple[float, Severity, str], ...] = (
        (14.4, "critical", "P0"),
        (6, "critical", "P1"),
        (3, "warning", "P2"),
        (1, "warning", "P3"),
    )
    for (long, short, hold), (factor, severity, priority) in zip(profile.burn, factors, strict=True):
        yield Alert(
            "OneiricResolutionErrorBudgetBurn",
            f"{_errors(long)} > {factor} * 0.01 and {_errors(short)} > {factor} * 0.01",
            hold,
            severity,
            priority,
            "resolution",
            1,
            "Resolution uses up its error budget",
            f"{{{{ $value | humanizePercentage }}}} of the resolutions of the last {long} failed, "
            f"{factor:g} times what an objective of 99% allows.",
            f"the last {short} are within the budget",
            labels=(("long", long), ("short", short)),
        )


def _errors(window: str) -> str:
    good = f'sum(rate(oneiric_resolution_total{{outcome="success"}}[{window}]))'
    return f"(1 - {good} / sum(rate(oneiric_resolution_total[{window}])))"


def _number(query: str) -> str:
    """Return the template of a whole number that *query* finds, 0 for nothing."""
    return f'{{{{ with query "{query}" }}}}{{{{ . | first | value | printf "%.0f" }}}}{{{{ else }}}}0{{{{ end }}}}'
