"""The dashboard of runbook 5: how much there is of everything, whether it grows, and what makes it grow."""

from __future__ import annotations

from boards import Line, board, overview
from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import Dashboard
from panels import ANY, at_most, logs, stat, timeseries
from queries import counted, lines, now, of, per_second, process, quantile, worst

SEE = "runbook-5-memory-exhaustion"
LEAK = "scenario-a-instance-leak-cleanup-not-called"
PROVIDER = "scenario-b-memory-leak-in-provider"
MANY = "scenario-c-too-many-domainskeys"
THRASHING = "scenario-d-rapid-swapping-loop"
INSTANCES = "oneiric:system_active_instances_total:5m"
ESTIMATE = "oneiric:system_memory_usage_estimate_bytes:5m"
EACH = 50 * 1024 * 1024
SWAPS = "oneiric_lifecycle_swap_total"
CLEANUPS = "oneiric_lifecycle_cleanup_total"
ACTIVE = "oneiric_lifecycle_active_instances"
LEAKED = f"{now(SWAPS)} - {now(CLEANUPS)} - {now(ACTIVE)}"
RESIDENT = process("resident_memory_bytes")

WELL: tuple[Line, ...] = (
    overview(
        stat(
            "Active instances count",
            "Instances that serve or wait in a pool; all daemons together. Below 100 is reasonable; 200 page.",
            INSTANCES,
            steps=at_most(100, 200),
            decimals=0,
        ),
        stat(
            "Memory usage estimate",
            "50 MiB for each active instance. A rule of thumb: the measured memory is beside it.",
            ESTIMATE,
            unit="bytes",
            steps=at_most(100 * EACH, 200 * EACH),
            see=MANY,
        ),
        stat(
            "Memory in use",
            "Resident memory of the daemons, as measured.",
            f"sum({RESIDENT})",
            unit="bytes",
        ),
        stat(
            "Memory growth rate",
            "How fast resident memory grew over the time on display. Look at an hour or more: it should be about 0.",
            f"sum(deriv({RESIDENT}[$__range]))",
            unit="Bps",
            see=PROVIDER,
        ),
        stat(
            "Leaked instances",
            "Swaps minus cleanups minus active instances: what was built and is neither in use nor closed. A swap "
            "under way shows as 1 for a moment.",
            LEAKED,
            steps=ANY,
            decimals=0,
            see=LEAK,
        ),
    ),
    (
        stat(
            "Event loop lag",
            "By how much the event loop was late at worst in the last half minute. When high, something blocks it.",
            f"max({of('oneiric_event_loop_lag_seconds')})",
            unit="s",
            steps=at_most(0.1, 1),
        ),
        stat(
            "Leases held",
            "Calls that use an instance now.",
            now("oneiric_lifecycle_leases"),
            decimals=0,
        ),
        stat(
            "Version",
            "Which versions run; more than one while a deployment is under way.",
            now("oneiric_build_info", "version"),
            legend="{{version}}",
            text=BigValueTextMode.NAME,
        ),
        stat(
            "Running since",
            "When the daemon that started last was started. A recent time without a deployment is a crash or a kill.",
            f"max({process('start_time_seconds')}) * 1000",
            unit="dateTimeFromNow",
        ),
        stat(
            "Processor use",
            "Processors that the daemons keep busy.",
            f"sum(rate({process('cpu_seconds_total')}[$__rate_interval]))",
            unit="percentunit",
            steps=at_most(0.5, 0.9),
        ),
        stat(
            "Open files",
            "Open files and sockets, as a share of what a daemon may open.",
            f"max({process('open_fds')} / {process('max_fds')})",
            unit="percentunit",
            steps=at_most(0.5, 0.8),
        ),
    ),
)

CHANGES: tuple[Line, ...] = (
    (
        timeseries(
            "Active instances by domain",
            "Where the instances are. It should be level; a staircase is a leak, a step is a deployment.",
            (now(ACTIVE, "domain"), "{{domain}}"),
            (INSTANCES, "all"),
            steps=at_most(100, 200),
        ),
        timeseries(
            "Memory measured and estimated",
            "Resident memory of each daemon, the estimate of 50 MiB for an active instance, and what to provide by the "
            "runbook's formula: the estimate and 500 MB.",
            (RESIDENT, "{{instance}} in use"),
            (ESTIMATE, "estimate"),
            (f"{ESTIMATE} + 500e6", "to provide"),
            unit="bytes",
            see=MANY,
        ),
        timeseries(
            "Memory growth rate over time",
            "How fast resident memory grows. Above 0 for hours, while instances are level, is a leak in a provider.",
            (f"deriv({RESIDENT}[$__rate_interval])", "{{instance}}"),
            unit="Bps",
            least=None,
            see=PROVIDER,
        ),
    ),
    (
        timeseries(
            "Swaps minus cleanups",
            "Instances that serve or leak. It should lie on the active instances.",
            (f"{now(SWAPS)} - {now(CLEANUPS)}", "swaps - cleanups"),
            (now(ACTIVE), "active"),
            see=LEAK,
        ),
        timeseries(
            "Leaked instances over time",
            "What was built and is neither in use nor closed.",
            (LEAKED, "leaked"),
            steps=ANY,
            least=None,
            see=LEAK,
        ),
        timeseries(
            "Restarts",
            "Starts in the minute before each point of the graph. The runbook lists how to tell an OOM kill.",
            (f"changes({process('start_time_seconds')}[$__rate_interval])", "{{instance}}"),
            bars=True,
        ),
    ),
)

WHY: tuple[Line, ...] = (
    (
        timeseries(
            "Swap rate by slot",
            "Swaps per second of the slots that swap most often. A steady rate is a loop.",
            (worst(per_second(SWAPS, "domain, key")), "{{domain}}/{{key}}"),
            unit="ops",
            see=THRASHING,
        ),
        timeseries(
            "Settings changes by file",
            "Changes that were applied. A file that changes all the time makes slots swap all the time.",
            (counted("oneiric_config_changes_total", "domain"), "{{domain}}"),
            bars=True,
            see=THRASHING,
        ),
        timeseries(
            "Cleanups by domain",
            "Instances that were closed, and those that could not be.",
            (counted(CLEANUPS, "domain"), "{{domain}} closed"),
            (counted("oneiric_lifecycle_cleanup_failures_total", "domain"), "{{domain}} failed"),
            bars=True,
            see=LEAK,
        ),
    ),
    (
        timeseries(
            "Leases held by domain",
            "Calls that use an instance now. Leases that never end keep old instances in memory.",
            (now("oneiric_lifecycle_leases", "domain"), "{{domain}}"),
            see=LEAK,
        ),
        timeseries(
            "Swap duration P95 by domain",
            "95 of 100 swaps took less.",
            (quantile(0.95, "oneiric_lifecycle_swap_duration_ms", "domain"), "{{domain}}"),
            unit="ms",
            steps=((None, "green"), (10_000, "red")),
            see="scenario-c-swap-timeout",
        ),
        timeseries(
            "Resolution latency by domain",
            "99 of 100 rankings took less.",
            (quantile(0.99, "oneiric_resolution_duration_seconds", "domain"), "{{domain}}"),
            unit="s",
            see="runbook-1-resolution-failures",
        ),
    ),
    (
        timeseries(
            "Event loop lag over time",
            "By how much the event loop was late at worst in half a minute. Foreign code that blocks shows here first.",
            (of("oneiric_event_loop_lag_seconds"), "{{instance}}"),
            unit="s",
            steps=at_most(0.1, 1),
        ),
        timeseries(
            "Processor use over time",
            "Processors that each daemon keeps busy.",
            (f"rate({process('cpu_seconds_total')}[$__rate_interval])", "{{instance}}"),
            unit="percentunit",
        ),
        timeseries(
            "Open files over time",
            "Open files and sockets of each daemon. A staircase is a provider that does not close its connections.",
            (process("open_fds"), "{{instance}}"),
            see=PROVIDER,
        ),
        timeseries(
            "Cached artifacts over time",
            "Artifacts in the cache, which hold disk and, once imported, memory.",
            (now("oneiric_cache_artifacts"), "artifacts"),
        ),
    ),
)

SAID: tuple[Line, ...] = (
    (
        logs(
            "Activated instances in the log",
            "Every instance that began to serve.",
            lines("instance-activated", say="{{.domain}}/{{.key}}: {{.provider}} {{.instance_id}}"),
        ),
        logs(
            "Cleanups in the log",
            "Started, complete or failed, by instance. Started and nothing else is a cleanup that hangs.",
            lines(
                "cleanup-started",
                "cleanup-complete",
                "cleanup-failed",
                say="{{.event}} {{.domain}}/{{.key}} {{.provider}} {{.instance_id}}",
            ),
            see=LEAK,
        ),
    ),
    (
        logs(
            "Settings changes in the log",
            "Which file changed, and when.",
            lines("config-changed", say="{{.timestamp}}: {{.file}}"),
            see=THRASHING,
        ),
        logs(
            "Leaks in the log",
            "Instances that should be gone and are still held, with the number of leases that hold them.",
            lines(
                "instance-leaked",
                say="{{.domain}}/{{.key}} {{.provider}} {{.instance_id}}, {{.leases}} leases: {{.error}}",
            ),
            see=LEAK,
        ),
    ),
    (
        logs(
            "Starts and stops in the log",
            "Ready, stopping, stopped. Ready twice without a stop between is a crash or a kill.",
            lines("daemon-ready", "daemon-stopping", "daemon-stopped", say="{{.event}} pid {{.pid}}"),
        ),
        logs(
            "Errors in the log",
            "Every line of level error, whatever it is about.",
            lines(where='level="error"', say="{{.event}}: {{.error}}"),
        ),
    ),
)


def performance() -> Dashboard:
    """Return the dashboard ``oneiric-performance``."""
    return board(
        "oneiric-performance",
        "Oneiric: performance",
        "How much there is of everything, whether it grows, and what makes it grow.",
        see=SEE,
        rows=(("Is it well?", WELL), ("What changes", CHANGES), ("Why", WHY), ("What it says", SAID)),
    )
