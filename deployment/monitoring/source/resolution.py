"""The dashboard of runbook 1: can every slot that is asked for be filled, and if not, why."""

from __future__ import annotations

from boards import Line, board, overview
from grafana_foundation_sdk.models.dashboard import Dashboard
from panels import ANY, ON, at_least, at_most, logs, stat, timeline, timeseries
from queries import counted, in_view, lines, now, of, per_second, quantile, worst

SEE = "runbook-1-resolution-failures"
NOBODY = "scenario-a-no-candidates-registered"
SHADOWED = "scenario-b-all-candidates-shadowed"
UNHEALTHY = "scenario-c-health-check-failures"
SETTINGS = "scenario-d-config-file-errors"
SUCCESS_RATE = "oneiric:resolution_success_rate_global:5m"
ASKED = "oneiric_resolution_total"
FAILURES = "oneiric_resolution_failures_total"
ANSWERED = per_second(ASKED, "domain", outcome="success")

WELL: tuple[Line, ...] = (
    overview(
        stat(
            "Resolution success rate",
            "Of all that asked who fills a slot in the last five minutes, how many got an answer; all instances "
            "together. It should be above 99 %; below 95 % it pages. Idle and healthy reads 100 %.",
            SUCCESS_RATE,
            unit="percentunit",
            steps=at_least(0.95, 0.99),
            decimals=2,
        ),
        stat(
            "Failed resolutions",
            "Questions in the time on display that nobody could answer.",
            in_view(FAILURES),
            steps=ANY,
            decimals=0,
        ),
        stat(
            "Slots nobody can fill",
            "Slots that settings select, an operator pinned or someone uses, and that no candidate may fill now.",
            now("oneiric_slots_unfilled"),
            steps=ANY,
            decimals=0,
            see=NOBODY,
        ),
        stat(
            "Invalid settings files",
            "Settings files whose last change was refused. The last good settings stay in force until it is repaired.",
            f"sum(1 - {of('oneiric_config_last_reload_successful')})",
            steps=ANY,
            decimals=0,
            see=SETTINGS,
        ),
        stat(
            "Plugins kept out",
            "Installed plugins that could not be loaded. `oneiric plugins` says why.",
            now("oneiric_plugins", state="failed"),
            steps=ANY,
            decimals=0,
            see=NOBODY,
        ),
    ),
)

CHANGES: tuple[Line, ...] = (
    (
        timeseries(
            "Resolution success rate over time",
            "The share of resolutions that succeeded, of all and by domain; a domain without traffic has no line.",
            (SUCCESS_RATE, "all, last five minutes"),
            (f"{ANSWERED} / {per_second(ASKED, 'domain')} >= 0", "{{domain}}"),
            unit="percentunit",
            steps=at_least(0.95, 0.99),
            most=1,
        ),
        timeseries(
            "Resolution failures by domain",
            "Failed resolutions per second. The domain that stands out is where to look.",
            (per_second(FAILURES, "domain"), "{{domain}}"),
            unit="ops",
        ),
        timeseries(
            "Recent error spikes",
            "Failed resolutions in the minute before each point of the graph, by slot. When did it begin, and what "
            "changed then? Purple and orange marks are swaps and settings changes.",
            (worst(counted(ASKED, "domain, key", outcome="failed")), "{{domain}}/{{key}}"),
            bars=True,
        ),
    ),
    (
        timeseries(
            "Resolution error rate",
            "The share of resolutions that failed, in per cent; above 5 % it pages.",
            (f"(1 - {SUCCESS_RATE}) * 100", "failed"),
            unit="percent",
            steps=((None, "green"), (1, "yellow"), (5, "red")),
        ),
        timeseries(
            "Resolutions by outcome",
            "Resolutions per second. A fall to nothing means that the program stopped asking.",
            (per_second(ASKED, "outcome"), "{{outcome}}"),
            unit="ops",
        ),
        timeseries(
            "Resolution latency",
            "How long it took to rank the candidates of a slot. Remembered answers are sampled.",
            (quantile(0.5, "oneiric_resolution_duration_seconds"), "P50"),
            (quantile(0.95, "oneiric_resolution_duration_seconds"), "P95"),
            (quantile(0.99, "oneiric_resolution_duration_seconds"), "P99"),
            unit="s",
        ),
    ),
)

WHY: tuple[Line, ...] = (
    (
        timeseries(
            "Resolution failures by reason",
            "no-candidates: nobody offers it (scenario A). all-shadowed: nobody who offers it is eligible, or is "
            "the one selected (B). unhealthy: there is no instance to hand out (C). config: settings are invalid (D). "
            "unknown-key: the program asks for what nobody declared.",
            (worst(counted(FAILURES, "domain, reason")), "{{domain}} {{reason}}"),
            bars=True,
            see=NOBODY,
        ),
        timeseries(
            "Failed resolutions by slot",
            "Failed resolutions per second, by slot. Ask `oneiric explain KEY --domain DOMAIN` about the worst.",
            (worst(per_second(ASKED, "domain, key", outcome="failed")), "{{domain}}/{{key}}"),
            unit="ops",
            bars=True,
            see=SHADOWED,
        ),
        timeseries(
            "Slots nobody can fill by domain",
            "Slots in use or selected without an eligible candidate. One that stays is an outage of that slot.",
            (now("oneiric_slots_unfilled", "domain"), "{{domain}}"),
            steps=ANY,
            see=NOBODY,
        ),
    ),
    (
        timeseries(
            "Candidates by state",
            "active won a slot, shadowed may serve but lost, rejected may not serve. A drop is a plugin, a settings "
            "file or a manifest that went away.",
            (now("oneiric_candidates", "domain, state"), "{{domain}} {{state}}"),
            see=SHADOWED,
        ),
        timeseries(
            "Candidates expected and active",
            "Keys that settings select or an operator pinned, against candidates that won a slot. Active below "
            "expected is a slot that lost its candidate.",
            (now("oneiric_candidates_expected", "domain"), "{{domain}} expected"),
            (now("oneiric_candidates", "domain", state="active"), "{{domain}} active"),
            see=NOBODY,
        ),
        timeseries(
            "Plugins",
            "Installed plugins, by whether they could be loaded; it changes at restarts only.",
            (now("oneiric_plugins", "state"), "{{state}}"),
            see=NOBODY,
        ),
    ),
    (
        timeline(
            "Settings files",
            "Whether the last change of each settings file was valid.",
            (f"min by (domain) ({of('oneiric_config_last_reload_successful')})", "{{domain}}"),
            steps=ON,
            names={"0": "refused", "1": "valid"},
            see=SETTINGS,
        ),
        timeseries(
            "Failed health checks by provider",
            "Probes that said no, raised or took too long. Failing providers are quarantined and cannot be chosen.",
            (
                worst(counted("oneiric_lifecycle_health_check_failures_total", "domain, key, provider")),
                "{{domain}}/{{key}} {{provider}}",
            ),
            bars=True,
            see=UNHEALTHY,
        ),
        timeseries(
            "Failed syncs in a row",
            "Remote manifests that cannot be had keep new candidates away, and old ones in place. At 3 it alerts.",
            (f"max by (source) ({of('oneiric_remote_sync_consecutive_failures')})", "{{source}}"),
            steps=at_most(1, 3),
            see="runbook-3-remote-sync-failures",
        ),
    ),
)

SAID: tuple[Line, ...] = (
    (
        logs(
            "Failed resolutions in the log",
            "Who was not found, and why. One slot is logged at most once a second.",
            lines("resolver-decision", where='outcome="failed"', say="{{.domain}}/{{.key}}: {{.error}}"),
        ),
        logs(
            "Settings and plugins in the log",
            "Settings that were refused, with file, line and column, and plugins that were kept out.",
            lines("config-rejected", "plugin-failed", say="{{.event}}: {{.error}}"),
            see=SETTINGS,
        ),
    ),
    (
        logs(
            "Failed health checks in the log",
            "What each failed probe said.",
            lines("health-check-failed", say="{{.domain}}/{{.key}} {{.provider}}: {{.error}}"),
            see=UNHEALTHY,
        ),
        logs(
            "Successful decisions in the log",
            "First answers, changed answers and a sample of the others: what a repair should bring back.",
            lines("resolver-decision", where='outcome="success"', say="{{.domain}}/{{.key}}: {{.provider}}"),
        ),
    ),
)


def resolution() -> Dashboard:
    """Return the dashboard ``oneiric-resolution``."""
    return board(
        "oneiric-resolution",
        "Oneiric: resolution",
        "Can every slot that is asked for be filled, and if not, why.",
        see=SEE,
        rows=(("Is it well?", WELL), ("What changes", CHANGES), ("Why", WHY), ("What it says", SAID)),
    )
