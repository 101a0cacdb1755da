"""The dashboard of runbook 2: do swaps work, and if not, which, and why."""

from __future__ import annotations

from boards import Line, board, overview
from grafana_foundation_sdk.models.dashboard import Dashboard
from panels import ANY, at_least, at_most, logs, stat, timeseries
from queries import appeared, counted, in_view, lines, now, per_second, quantile, worst

SEE = "runbook-2-hot-swap-failures"
UNHEALTHY = "scenario-a-health-check-failures"
IMPORT = "scenario-b-factory-import-errors"
SLOW = "scenario-c-swap-timeout"
CLEANUP = "scenario-d-cleanup-failures"
THRASHING = "scenario-d-rapid-swapping-loop"
SUCCESS_RATE = "oneiric:lifecycle_swap_success_rate:5m"
SWAPS = "oneiric_lifecycle_swap_total"
FAILURES = "oneiric_lifecycle_swap_failures_total"
DURATION = "oneiric_lifecycle_swap_duration_ms"
PLACE = "domain, key, provider"
NAMED = "{{domain}}/{{key}} {{provider}}"

WELL: tuple[Line, ...] = (
    overview(
        stat(
            "Swap success rate",
            "Of the swaps and first activations of the last five minutes, how many put their instance in place; all "
            "instances together. It should be above 95 %; below 90 % it pages. Idle and healthy reads 100 %.",
            SUCCESS_RATE,
            unit="percentunit",
            steps=at_least(0.9, 0.95),
            decimals=1,
        ),
        stat(
            "Failed swaps",
            "Swaps in the time on display that put nothing in place and had nothing to return to.",
            in_view(SWAPS, outcome="failed"),
            steps=ANY,
            decimals=0,
        ),
        stat(
            "Rollbacks",
            "Swaps in the time on display that were given up; the previous instance still serves.",
            in_view(SWAPS, outcome="rollback"),
            steps=((None, "green"), (0.5, "yellow"), (3, "red")),
            decimals=0,
        ),
        stat(
            "Swap duration P95",
            "95 of 100 swaps in the time on display took less. Above 10 s, look at slow providers and timeouts.",
            quantile(0.95, DURATION, over="$__range"),
            unit="ms",
            steps=at_most(1000, 10_000),
            empty="no swap",
            see=SLOW,
        ),
        stat(
            "Failed cleanups",
            "Disposals in the time on display that raised or took too long: what they held may still be held.",
            in_view("oneiric_lifecycle_cleanup_failures_total"),
            steps=ANY,
            decimals=0,
            see=CLEANUP,
        ),
    ),
)

CHANGES: tuple[Line, ...] = (
    (
        timeseries(
            "Swap success rate over time",
            "The share of swaps that succeeded. Swaps are rare, so one failure shows for five minutes: read it with "
            "the counts beside it.",
            (SUCCESS_RATE, "last five minutes"),
            unit="percentunit",
            steps=at_least(0.9, 0.95),
            most=1,
        ),
        timeseries(
            "Swaps by outcome",
            "Swaps and first activations in the minute before each point of the graph.",
            (counted(SWAPS, "outcome"), "{{outcome}}"),
            bars=True,
        ),
        timeseries(
            "Rollback rate",
            "Rollbacks per second, by slot and by the provider that did not pass. 3 of one slot in five minutes alert.",
            (worst(per_second(SWAPS, PLACE, outcome="rollback")), NAMED),
            unit="ops",
            bars=True,
        ),
    ),
    (
        timeseries(
            "Swap duration",
            "How long it took until callers had the new instance, or until the attempt was given up.",
            (quantile(0.5, DURATION), "P50"),
            (quantile(0.95, DURATION), "P95"),
            (quantile(0.99, DURATION), "P99"),
            unit="ms",
            steps=((None, "green"), (10_000, "red")),
            see=SLOW,
        ),
        timeseries(
            "Active instances by domain",
            "Instances that serve, or wait in a pool to serve again. It should be level; a staircase is a leak.",
            (now("oneiric_lifecycle_active_instances", "domain"), "{{domain}}"),
            see=CLEANUP,
        ),
        timeseries(
            "Leases held by domain",
            "Calls that use an instance now. A swap waits for those of the old one before it is closed.",
            (now("oneiric_lifecycle_leases", "domain"), "{{domain}}"),
        ),
    ),
)

WHY: tuple[Line, ...] = (
    (
        timeseries(
            "Swap failure reasons",
            "health-check: the new instance said no (scenario A). factory: it could not be imported or built (B). "
            "timeout: a step took longer than settings allow (C). hook: a hook refused.",
            (appeared(FAILURES, "reason"), "{{reason}}"),
            bars=True,
            see=UNHEALTHY,
        ),
        timeseries(
            "Failed swaps by slot",
            "Failed swaps per second, with the provider that could not be put in place.",
            (worst(per_second(SWAPS, PLACE, outcome="failed")), NAMED),
            unit="ops",
            bars=True,
            see=IMPORT,
        ),
        timeseries(
            "Reasons by slot",
            "Why swaps of each slot failed or were rolled back, since the start of the daemon. A step is a failure.",
            (worst(now(FAILURES, "domain, key, reason")), "{{domain}}/{{key}} {{reason}}"),
        ),
    ),
    (
        timeseries(
            "Failed health checks by provider",
            "Probes that said no, raised or took too long, of instances that serve and of those that were to.",
            (worst(counted("oneiric_lifecycle_health_check_failures_total", PLACE)), NAMED),
            bars=True,
            see=UNHEALTHY,
        ),
        timeseries(
            "Cleanups",
            "Old instances that were closed, and those that could not be.",
            (counted("oneiric_lifecycle_cleanup_total"), "closed"),
            (counted("oneiric_lifecycle_cleanup_failures_total", "domain"), "{{domain}} failed"),
            bars=True,
            see=CLEANUP,
        ),
        timeseries(
            "Slots paused or draining",
            "Slots that take no new leases because an operator said so. A swap asked for meanwhile happens afterwards.",
            (now("oneiric_activity_components", "domain, state"), "{{domain}} {{state}}"),
        ),
    ),
    (
        timeseries(
            "Settings changes by file",
            "Changes that were applied. Swaps that follow each of them in a hurry are a loop.",
            (counted("oneiric_config_changes_total", "domain"), "{{domain}}"),
            bars=True,
            see=THRASHING,
        ),
        timeseries(
            "Swaps by slot",
            "The slots that swap most often. More than 20 swaps of one slot in five minutes alert.",
            (worst(counted(SWAPS, "domain, key")), "{{domain}}/{{key}}"),
            bars=True,
            see=THRASHING,
        ),
    ),
)

SAID: tuple[Line, ...] = (
    (
        logs(
            "Failed swaps in the log",
            "What each attempt that put nothing in place said; rolled back or not.",
            lines("swap-failed", say="{{.domain}}/{{.key}} {{.provider}} ({{.reason}}): {{.error}}"),
        ),
        logs(
            "Swap history in the log",
            "Every swap, in order: what came, what failed, what took over again.",
            lines(
                "swap-complete",
                "swap-failed",
                "swap-rollback",
                say="{{.timestamp}}: {{.event}} {{.domain}}/{{.key}} {{.provider}}",
            ),
        ),
    ),
    (
        logs(
            "Rollbacks in the log",
            "Which provider still serves, and which one failed.",
            lines(
                "swap-rollback",
                say="{{.domain}}/{{.key}}: {{.provider}} serves, {{.failed_provider}} failed: {{.error}}",
            ),
        ),
        logs(
            "Failed health checks in the log",
            "What each failed probe said.",
            lines("health-check-failed", say="{{.domain}}/{{.key}} {{.provider}}: {{.error}}"),
            see=UNHEALTHY,
        ),
    ),
    (
        logs(
            "Import errors in the log",
            "Swaps whose factory could not be imported: a missing module, or a path that is wrong.",
            lines(
                "swap-failed", where='error=~".*ImportError.*"', say="{{.domain}}/{{.key}} {{.provider}}: {{.error}}"
            ),
            see=IMPORT,
        ),
        logs(
            "Slow swaps in the log",
            "Swaps that took more than 10 s and succeeded.",
            lines(
                "swap-complete",
                where="duration_ms > 10000",
                say="{{.domain}}/{{.key}} {{.provider}}: {{.duration_ms}} ms",
            ),
            see=SLOW,
        ),
    ),
    (
        logs(
            "Failed cleanups and leaks in the log",
            "Old instances that could not be closed, or are still held by a lease.",
            lines(
                "cleanup-failed",
                "instance-leaked",
                say="{{.event}} {{.domain}}/{{.key}} {{.provider}} {{.instance_id}}: {{.error}}",
            ),
            see=CLEANUP,
        ),
        logs(
            "Throttled and quarantined in the log",
            "Slots that swapped too often by themselves, and providers that may not be chosen until they are well.",
            lines(
                "swap-throttled",
                "candidate-quarantined",
                say="{{.event}} {{.domain}}/{{.key}} {{.provider}}: {{.error}}",
            ),
            see=THRASHING,
        ),
    ),
    (
        logs(
            "What operators did",
            "Every request on the control socket, and what came of it.",
            lines("control-request", say="{{.verb}} {{.target}} by uid {{.uid}}: {{.outcome}}"),
        ),
        logs(
            "Choices and pauses in the log",
            "Who pinned, unpinned, paused, drained or resumed which slot.",
            lines(
                "selection-pinned",
                "selection-unpinned",
                "activity-changed",
                say="{{.event}} {{.domain}}/{{.key}} by {{.by}}",
            ),
        ),
    ),
)


def lifecycle() -> Dashboard:
    """Return the dashboard ``oneiric-lifecycle``."""
    return board(
        "oneiric-lifecycle",
        "Oneiric: lifecycle",
        "Do swaps work, and if not, which, and why.",
        see=SEE,
        rows=(("Is it well?", WELL), ("What changes", CHANGES), ("Why", WHY), ("What it says", SAID)),
    )
