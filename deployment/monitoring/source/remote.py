"""The dashboard of runbooks 3 and 4: do manifests arrive, and is what arrives genuine."""

from __future__ import annotations

from boards import Line, board, overview
from grafana_foundation_sdk.models.dashboard import Dashboard
from panels import ANY, ON, at_least, at_most, logs, stat, timeline, timeseries
from queries import counted, in_view, lines, now, of, quantile

SEE = "runbook-3-remote-sync-failures"
CORRUPTION = "runbook-4-cache-corruption"
NETWORK = "scenario-a-network-issues"
SIGNATURE = "scenario-b-signature-verification-failed"
DIGEST = "scenario-c-digest-mismatch"
BREAKER = "scenario-d-circuit-breaker-open"
TAMPERING = "scenario-c-manifest-tampering"
SUCCESS_RATE = "oneiric:remote_sync_success_rate:5m"
LATENCY = "oneiric_remote_sync_duration_seconds"
OPEN = {"0": "closed", "1": "open"}
REQUIRED = {"0": "not required", "1": "required"}
DAY = 86_400

WELL: tuple[Line, ...] = (
    overview(
        stat(
            "Sync success rate",
            "Of the synchronisations of the last five minutes, how many succeeded; all instances together. It should "
            "be above 99 %. Without one in that time, the outcome of the last.",
            SUCCESS_RATE,
            unit="percentunit",
            steps=at_least(0.95, 0.99),
            decimals=1,
        ),
        stat(
            "Failed syncs in a row",
            "Synchronisations that failed since the last that succeeded; kept across restarts. At 3 it alerts.",
            f"max({of('oneiric_remote_sync_consecutive_failures')})",
            steps=at_most(1, 3),
            decimals=0,
        ),
        stat(
            "Last sync time",
            "When the last synchronisation ended, well or not.",
            f"max({of('oneiric_remote_last_sync_timestamp_seconds')} > 0) * 1000",
            unit="dateTimeFromNow",
            empty="never",
        ),
        stat(
            "Time since the last success",
            "How old what we know of the manifest is. It alerts from three refresh intervals on, at least 15 minutes.",
            f"time() - max({of('oneiric_remote_last_success_timestamp_seconds')} > 0)",
            unit="s",
            steps=at_most(600, 900),
            empty="never",
        ),
        stat(
            "Circuit breaker",
            "Open after failures in a row: nothing is asked until it closes again, 60 s by default, or `--force`.",
            f"max({of('oneiric_remote_circuit_breaker_open')})",
            unit="none",
            steps=ANY,
            names=OPEN,
            see=BREAKER,
        ),
    ),
    (
        stat(
            "Digest mismatches",
            "Artifacts in the time on display that are not what the manifest names. One may be a disk, many an attack.",
            in_view("oneiric_remote_digest_checks_total", outcome="failed"),
            steps=ANY,
            decimals=0,
            see=CORRUPTION,
        ),
        stat(
            "Quarantined artifacts",
            "Artifacts with a wrong digest, kept as evidence, that no right one has replaced.",
            now("oneiric_remote_quarantined_artifacts"),
            steps=ANY,
            decimals=0,
            see=CORRUPTION,
        ),
        stat(
            "Failed signature checks",
            "Manifests in the time on display that are not signed as settings demand. Suspect an attack first.",
            in_view("oneiric_remote_signature_checks_total", outcome="failed"),
            steps=ANY,
            decimals=0,
            see=SIGNATURE,
        ),
        stat(
            "Signatures",
            "Whether unsigned manifests are refused. If not, anyone on the way here can put code into the daemon.",
            f"min({of('oneiric_remote_signature_required')})",
            unit="none",
            steps=ON,
            names=REQUIRED,
            see=SIGNATURE,
        ),
        stat(
            "Manifest expires in",
            "How long the manifest in force stays acceptable. The publisher has to sign a new one before.",
            f"min({of('oneiric_remote_manifest_expires_timestamp_seconds')} > 0) - time()",
            unit="s",
            steps=at_least(DAY, 3 * DAY),
            empty="does not expire",
        ),
        stat(
            "Skipped syncs",
            "Rounds in the time on display that asked nobody because the circuit breaker was open.",
            in_view("oneiric_remote_sync_skipped_total", reason="circuit-open"),
            steps=((None, "green"), (0.5, "yellow")),
            decimals=0,
            see=BREAKER,
        ),
        stat(
            "Sync latency",
            "How long the last synchronisation took.",
            f"max({of('oneiric_remote_last_sync_duration_seconds')})",
            unit="s",
            steps=at_most(5, 30),
            see=NETWORK,
        ),
        stat(
            "Cache size",
            "Bytes in the cache; looked at once a minute.",
            now("oneiric_cache_size_bytes"),
            unit="bytes",
        ),
    ),
)

CHANGES: tuple[Line, ...] = (
    (
        timeseries(
            "Sync success rate over time",
            "The share of synchronisations that succeeded.",
            (SUCCESS_RATE, "last five minutes"),
            unit="percentunit",
            steps=at_least(0.95, 0.99),
            most=1,
        ),
        timeseries(
            "Syncs by outcome",
            "Synchronisations in the minute before each point of the graph. adhoc: a manifest that somebody named.",
            (counted("oneiric_remote_sync_total", "source, outcome"), "{{source}} {{outcome}}"),
            bars=True,
        ),
        timeseries(
            "Sync latency over time",
            "How long synchronisations took, and the last one. A timeout ends each after 30 s by default.",
            (quantile(0.5, LATENCY), "P50"),
            (quantile(0.95, LATENCY), "P95"),
            (quantile(0.99, LATENCY), "P99"),
            (f"max by (source) ({of('oneiric_remote_last_sync_duration_seconds')})", "{{source}} last"),
            unit="s",
            see=NETWORK,
        ),
    ),
    (
        timeseries(
            "Failed syncs in a row over time",
            "Synchronisations that failed since the last that succeeded. At 3 it alerts and the circuit breaker opens.",
            (f"max by (source) ({of('oneiric_remote_sync_consecutive_failures')})", "{{source}}"),
            steps=at_most(1, 3),
        ),
        timeseries(
            "Age of the last sync and the last success",
            "A saw with teeth as high as the interval is well. While one grows, nobody asks or nobody answers.",
            (f"time() - max by (source) ({of('oneiric_remote_last_sync_timestamp_seconds')} > 0)", "{{source}} sync"),
            (
                f"time() - max by (source) ({of('oneiric_remote_last_success_timestamp_seconds')} > 0)",
                "{{source}} success",
            ),
            (f"max by (source) ({of('oneiric_remote_refresh_interval_seconds')})", "{{source}} interval"),
            unit="s",
            steps=((None, "green"), (900, "red")),
        ),
        timeline(
            "Circuit breaker over time",
            "When synchronisation paused after failures.",
            (f"max by (source) ({of('oneiric_remote_circuit_breaker_open')})", "{{source}}"),
            steps=ANY,
            names=OPEN,
            see=BREAKER,
        ),
    ),
)

WHY: tuple[Line, ...] = (
    (
        timeseries(
            "Signature checks",
            "Manifests whose signatures were verified, by outcome.",
            (counted("oneiric_remote_signature_checks_total", "source, outcome"), "{{source}} {{outcome}}"),
            bars=True,
            see=TAMPERING,
        ),
        timeseries(
            "Digest checks",
            "Artifacts compared with the digest that the manifest names.",
            (counted("oneiric_remote_digest_checks_total", "outcome"), "{{outcome}}"),
            bars=True,
            see=CORRUPTION,
        ),
        timeseries(
            "Quarantined artifacts over time",
            "It falls when a right artifact replaced the wrong one.",
            (now("oneiric_remote_quarantined_artifacts"), "quarantined"),
            steps=ANY,
            see=DIGEST,
        ),
    ),
    (
        timeseries(
            "Skipped syncs by reason",
            "circuit-open: nobody was asked. not-modified: the publisher had nothing new, which is well.",
            (counted("oneiric_remote_sync_skipped_total", "source, reason"), "{{source}} {{reason}}"),
            bars=True,
            see=BREAKER,
        ),
        timeseries(
            "Registered candidates by domain",
            "All candidates, those from manifests among them. It changes when a manifest brings or withdraws some.",
            (now("oneiric_candidates", "domain"), "{{domain}}"),
        ),
        timeseries(
            "Cache size over time",
            "Bytes in the cache. `oneiric cache prune` removes what no manifest names.",
            (now("oneiric_cache_size_bytes"), "bytes"),
            unit="bytes",
            see=CORRUPTION,
        ),
    ),
)

SAID: tuple[Line, ...] = (
    (
        logs(
            "Sync errors in the log",
            "Why each synchronisation failed, and what that did to the circuit breaker.",
            lines(
                "remote-sync-error",
                say="{{.source}} ({{.consecutive_failures}} in a row, breaker {{.circuit_breaker}}): {{.error}}",
            ),
        ),
        logs(
            "Network errors in the log",
            "Synchronisations that could not connect, or took too long.",
            lines("remote-sync-error", where='error=~".*timeout.*|.*connection.*"', say="{{.source}}: {{.error}}"),
            see=NETWORK,
        ),
    ),
    (
        logs(
            "Signature failures in the log",
            "Manifests that are not signed as settings demand, with the key that was named.",
            lines("signature-verification-failed", say="{{.source}} key {{.key_id}}: {{.error}}"),
            see=SIGNATURE,
        ),
        logs(
            "Digest mismatches in the log",
            "Artifacts that are not what the manifest names. Many of them are an attack until it is explained.",
            lines("digest-check-failed", say="{{.artifact}}: {{.expected_digest}} != {{.actual_digest}}"),
            see=CORRUPTION,
        ),
    ),
    (
        logs(
            "While the circuit breaker is open",
            "Lines that report an open circuit breaker.",
            lines(where='circuit_breaker="open"', say="{{.event}} {{.source}}: {{.error}}"),
            see=BREAKER,
        ),
        logs(
            "Circuit breaker changes in the log",
            "When it opened, tried again, and closed.",
            lines("circuit-breaker-changed", say="{{.source}}: {{.previous}} -> {{.state}}"),
            see=BREAKER,
        ),
    ),
    (
        logs(
            "Accepted manifests in the log",
            "What came, with its version and the number of its entries; after a start, what the cache held.",
            lines(
                "remote-sync-complete",
                "remote-restored",
                say="{{.event}} {{.source}}: version {{.manifest_version}}, {{.entries}} entries",
            ),
        ),
        logs(
            "Right digests in the log",
            "Artifacts that are what the manifest names: what a repaired cache should show.",
            lines("digest-check-success", say="{{.artifact}}: {{.actual_digest}}"),
            see=CORRUPTION,
        ),
    ),
)


def remote() -> Dashboard:
    """Return the dashboard ``oneiric-remote``."""
    return board(
        "oneiric-remote",
        "Oneiric: remote",
        "Do manifests arrive, and is what arrives genuine.",
        see=SEE,
        rows=(("Is it well?", WELL), ("What changes", CHANGES), ("Why", WHY), ("What it says", SAID)),
    )
