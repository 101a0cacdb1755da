"""For each alert the values just past its boundary and just before it, and a healthy case that looks like it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from oneiric.observability.catalog import METRICS
from tests.harness.promtool import Expected, Line, Scenario, firing, quiet, scraped, series

LONG_AGO = -1e6
DAY = 86_400
RESOLVED, REFUSED = ("success", "adapter", "cache"), ("failed", "adapter", "cache")
SWAPPED = ("success", "adapter", "cache", "redis")
FAILED = ("failed", "adapter", "cache", "redis")
ROLLED_BACK = ("rollback", "adapter", "cache", "redis")
SUFFIX = ("_bucket", "_count", "_sum")


def of(metric: str, *labels: str) -> str:
    """Return the name of a series; label values stand in the catalog's order, a bucket's bound comes last."""
    stem = next((metric.removesuffix(end) for end in SUFFIX if metric.endswith(end)), metric)
    names = (*METRICS[stem].labels, *(("le",) if metric.endswith("_bucket") else ()))
    return series(metric, **dict(zip(names, labels, strict=True)))


UP, STARTED = series("up"), series("process_start_time_seconds")
RESIDENT = series("process_resident_memory_bytes")
RESOLUTIONS, SWAPS = "oneiric_resolution_total", "oneiric_lifecycle_swap_total"
CLEANUPS = of("oneiric_lifecycle_cleanup_total", "adapter")
ACTIVE = of("oneiric_lifecycle_active_instances", "adapter")
UNFILLED = of("oneiric_slots_unfilled", "adapter")
EXPECTED = of("oneiric_candidates_expected", "adapter")
CANDIDATES = of("oneiric_candidates", "adapter", "active")
CONSECUTIVE = of("oneiric_remote_sync_consecutive_failures", "remote")
REFRESH = of("oneiric_remote_refresh_interval_seconds", "remote")
SUCCEEDED_AT = of("oneiric_remote_last_success_timestamp_seconds", "remote")
EXPIRES_AT = of("oneiric_remote_manifest_expires_timestamp_seconds", "remote")
BREAKER = of("oneiric_remote_circuit_breaker_open", "remote")
WRONG_DIGESTS = of("oneiric_remote_digest_checks_total", "failed")
QUARANTINED = of("oneiric_remote_quarantined_artifacts")
WRONG_SIGNATURES = of("oneiric_remote_signature_checks_total", "failed", "remote")
HEALTH = of("oneiric_lifecycle_health_check_failures_total", "adapter", "cache", "redis")
VALID = of("oneiric_config_last_reload_successful", "adapter")
LAG = of("oneiric_event_loop_lag_seconds")


# Lines


def flat(value: float) -> Line:
    return lambda _at: value


def steps(*changes: tuple[float, float | None], first: float | None = 0) -> Line:
    """Return a line that has a new value from each time on."""
    return lambda at: next((value for since, value in reversed(changes) if at >= since), first)


def rising(by_second: float, since: float = -inf, until: float = inf, first: float = 0) -> Line:
    """Return a counter."""
    begin = max(since, 0)
    return lambda at: first + by_second * max(0.0, min(at, until) - begin)


def healthy() -> dict[str, Line]:
    """Return what a daemon shows that serves, has done so for long, and has nothing to do."""
    counted = {
        of(RESOLUTIONS, outcome, domain, "cache"): 0.0 for outcome in ("success", "failed") for domain in DOMAINS
    }
    counted |= {of(RESOLUTIONS, *RESOLVED): 90_000.0, of(RESOLUTIONS, *REFUSED): 7.0}
    counted |= {of(SWAPS, *SWAPPED): 40.0, of(SWAPS, *FAILED): 3.0, of(SWAPS, *ROLLED_BACK): 4.0}
    counted |= {of(SWAPS, outcome, "adapter", "queue", "kafka"): 0.0 for outcome in ("success", "failed", "rollback")}
    counted |= {CLEANUPS: 46.0, ACTIVE: 1.0, HEALTH: 30.0, UNFILLED: 0.0, EXPECTED: 1.0, CANDIDATES: 1.0}
    counted |= {of("oneiric_remote_sync_total", outcome, "remote"): 5.0 for outcome in ("success", "failed")}
    counted |= {of("oneiric_remote_digest_checks_total", "success"): 10.0, WRONG_DIGESTS: 2.0, QUARANTINED: 0.0}
    counted |= {CONSECUTIVE: 0.0, REFRESH: 300.0, SUCCEEDED_AT: 0.0, EXPIRES_AT: 30.0 * DAY, BREAKER: 0.0}
    counted |= {WRONG_SIGNATURES: 1.0, VALID: 1.0, LAG: 0.001, UP: 1.0, STARTED: LONG_AGO, RESIDENT: 500e6}
    return {name: flat(value) for name, value in counted.items()}


DOMAINS = ("adapter", "service")


def scenario(name: str, lines: Mapping[str, Line], *expected: Expected) -> Scenario:
    """Return a scenario in which all is well apart from *lines*."""
    return bare(name, {**healthy(), **lines}, *expected)


def bare(name: str, lines: Mapping[str, Line], *expected: Expected, interval: int = 15) -> Scenario:
    """Return a scenario with *lines* alone; one that lasts for hours costs by the line."""
    return Scenario(name, scraped(lines, max(one.at for one in expected), interval=interval), expected)


def down(since: float, until: float = inf, lines: Mapping[str, Line] | None = None) -> dict[str, Line]:
    """Return the lines of a daemon that answers no scrape for some time."""

    def unless_down(line: Line) -> Line:
        return lambda at: None if since <= at < until else line(at)

    lost = {name: unless_down(line) for name, line in {**healthy(), **(lines or {})}.items()}
    return {**lost, UP: steps((since, 0), (until, 1), first=1)}


def traffic(failing: float, *, domain: str = "adapter", until: float = inf, rate: float = 100) -> dict[str, Line]:
    """Return resolutions of which a part fails, until a time from which on all succeed."""
    return varying((0, failing), (until, 0), domain=domain, rate=rate)


def varying(*phases: tuple[float, float], domain: str = "adapter", rate: float = 100) -> dict[str, Line]:
    """Return resolutions of which another part fails from each time on."""
    ends = [*(since for since, _ in phases[1:]), inf]

    def failed(at: float) -> float:
        parts = zip(phases, ends, strict=True)
        return sum(rate * part * max(0.0, min(at, end) - since) for (since, part), end in parts)

    good, bad = (of(RESOLUTIONS, outcome, domain, "cache") for outcome in ("success", "failed"))
    return {good: lambda at: rate * at - failed(at), bad: failed}


def attempts(good: int, *, failed: int = 0, rolled_back: int = 0, at: float = 60) -> dict[str, Line]:
    """Return attempts to swap that end at one time, and their disposals."""
    return {
        of(SWAPS, *SWAPPED): steps((at, 40 + good), first=40),
        of(SWAPS, *FAILED): steps((at, 3 + failed), first=3),
        of(SWAPS, *ROLLED_BACK): steps((at, 4 + rolled_back), first=4),
        CLEANUPS: steps((at, 46 + good + failed + rolled_back), first=46),
    }


def slow_swaps(milliseconds: float, *, slow: int = 1, fast: int = 0) -> dict[str, Line]:
    """Return swaps that take so long, and *fast* ones that take a moment."""
    bounds = (*METRICS["oneiric_lifecycle_swap_duration_ms"].buckets, inf)
    return {
        of("oneiric_lifecycle_swap_duration_ms_bucket", "adapter", str(float(bound)) if bound < inf else "+Inf"): steps(
            (60, 9 + fast + slow * (milliseconds <= bound)), first=9
        )
        for bound in bounds
    }


# Scenarios


def scenarios() -> dict[int, tuple[Scenario, ...]]:
    """Return every scenario by the interval of scrapes that it is for: long windows do with fewer of them."""
    usual = (*_resolution(), *_swaps(), *_instances(), *_remote(), *_daemon())
    return {
        15: (*usual, *_burns("1h", 300, 0.144, 120, "critical", "P0", interval=15)),
        60: tuple(_burns("6h", 1800, 0.06, 900, "critical", "P1", interval=60)),
        240: (
            *_burns("1d", 7200, 0.03, 3600, "warning", "P2", interval=240),
            *_burns("3d", 21_600, 0.01, 10_800, "warning", "P3", interval=240),
        ),
    }


def _resolution() -> Iterator[Scenario]:
    alert = "OneiricResolutionFailureRateHigh"
    burn = "OneiricResolutionErrorBudgetBurn"
    yield scenario(
        "resolution: 6% fail",
        traffic(0.06, until=300),
        quiet(45, alert),
        firing(90, alert),
        firing(90, alert, domain="adapter"),
        firing(300, alert),
        quiet(420, alert),
    )
    yield scenario("resolution: 20% fail, then none", traffic(0.2, until=300), firing(510, alert), quiet(570, alert))
    yield scenario("resolution: 4.9% fail", traffic(0.049), quiet(90, alert), quiet(600, alert))
    yield scenario(
        "resolution: only the guilty domain is named",
        {**traffic(0.2), **traffic(0.045, domain="service")},
        firing(120, alert, 1),
        firing(120, alert, domain="adapter"),
    )
    yield scenario(
        "resolution: a domain without weight",
        {**traffic(0.2, rate=29), **traffic(0, domain="service")},  # 4.5% of all
        quiet(120, alert),
        quiet(600, alert),
    )
    yield scenario("resolution: nobody asks", {}, quiet(120, alert), quiet(600, alert), quiet(600, burn))
    yield scenario(
        "burn 1h: 15% fail for ten minutes",
        traffic(0.15, until=600),
        quiet(120, burn),
        firing(180, burn, long="1h", severity="critical", priority="P0"),
        firing(600, burn, long="1h"),
        firing(930, burn, 0, long="1h"),
    )
    alert = "OneiricLowCandidateCount"
    yield scenario(
        "candidates: a wanted slot has none",
        {UNFILLED: steps((60, 2), (300, 0))},
        quiet(120, alert),
        firing(150, alert, 1),
        firing(150, alert, domain="adapter"),
        quiet(330, alert),
    )
    yield scenario(
        "candidates: two reasons are one alert", {UNFILLED: flat(1), CANDIDATES: flat(0)}, firing(90, alert, 1)
    )
    yield scenario("candidates: expected, none active", {CANDIDATES: flat(0)}, quiet(60, alert), firing(90, alert))
    yield scenario(
        "candidates: none, and none expected",
        {CANDIDATES: flat(0), EXPECTED: flat(0)},
        quiet(90, alert),
        quiet(600, alert),
    )
    yield scenario(
        "candidates: gone for a moment", {UNFILLED: steps((60, 1), (105, 0))}, quiet(120, alert), quiet(180, alert)
    )
    alert = "OneiricConfigInvalid"
    yield scenario(
        "settings: invalid, then repaired",
        {VALID: steps((60, 0), (300, 1), first=1)},
        quiet(60, alert),
        firing(90, alert, domain="adapter"),
        quiet(330, alert),
    )
    yield scenario("settings: valid", {}, quiet(300, alert))


def _swaps() -> Iterator[Scenario]:
    alert = "OneiricLifecycleSwapFailureRateHigh"
    yield scenario(
        "swaps: one attempt, one failure",
        attempts(0, failed=1),
        quiet(90, alert),
        firing(120, alert),
        firing(345, alert),
        quiet(390, alert),
    )
    yield scenario("swaps: one rolled back of nine", attempts(8, rolled_back=1), quiet(90, alert), firing(120, alert))
    yield scenario("swaps: one failed of ten", attempts(9, failed=1), quiet(120, alert), quiet(300, alert))
    yield scenario(
        "swaps: one good retry does not clear it",
        {**attempts(0, failed=1), of(SWAPS, *SWAPPED): steps((180, 41), first=40)},
        firing(150, alert),
        firing(240, alert),
    )
    yield scenario("swaps: deployments that work", {**attempts(12)}, quiet(120, alert), quiet(300, alert))
    alert = "OneiricRollbackRateHigh"
    thrice = {
        of(SWAPS, *ROLLED_BACK): steps((60, 5), (120, 6), (180, 7), first=4),
        CLEANUPS: steps((60, 47), (120, 48), (180, 49), first=46),
    }
    yield scenario(
        "rollbacks: three of one component",
        thrice,
        quiet(180, alert),
        firing(210, alert, key="cache"),
        quiet(390, alert),
    )
    twice = {of(SWAPS, *ROLLED_BACK): steps((60, 5), (120, 6), first=4)}
    yield scenario("rollbacks: two of one component", twice, quiet(210, alert), quiet(330, alert))
    spread = {of(SWAPS, "rollback", "adapter", "queue", "kafka"): steps((150, 1))}
    yield scenario("rollbacks: three of two components", {**twice, **spread}, quiet(210, alert), quiet(330, alert))
    alert = "OneiricRapidSwapping"
    loop = {of(SWAPS, *SWAPPED): rising(0.1, until=300, first=40), CLEANUPS: rising(0.1, until=300, first=46)}
    yield scenario(
        "rapid: a loop of 30 swaps", loop, quiet(180, alert), firing(240, alert, key="cache"), quiet(570, alert)
    )
    steady = {of(SWAPS, *SWAPPED): rising(0.075, first=40), CLEANUPS: rising(0.075, first=46)}
    yield scenario("rapid: 22 swaps in five minutes", steady, firing(360, alert, key="cache"))
    calm = {of(SWAPS, *SWAPPED): rising(0.06, first=40), CLEANUPS: rising(0.06, first=46)}
    yield scenario("rapid: 18 swaps in five minutes", calm, quiet(300, alert), quiet(600, alert))
    other = of(SWAPS, "success", "adapter", "queue", "kafka")
    yield scenario(
        "rapid: 36 swaps of two components", {**calm, other: rising(0.06)}, quiet(300, alert), quiet(600, alert)
    )
    alert = "OneiricSwapDurationHigh"
    yield scenario(
        "duration: a swap takes 15 s", slow_swaps(15_000), quiet(180, alert), firing(210, alert), quiet(390, alert)
    )
    yield scenario("duration: a twentieth is slow", slow_swaps(15_000, slow=54, fast=946), firing(210, alert))
    yield scenario("duration: a swap takes 10 s", slow_swaps(10_000), quiet(210, alert), quiet(330, alert))
    yield scenario(
        "duration: one slow swap among forty", slow_swaps(15_000, fast=39), quiet(210, alert), quiet(330, alert)
    )
    alert = "OneiricHealthCheckFailures"
    yield scenario(
        "health: three probes fail",
        {HEALTH: steps((60, 31), (90, 32), (120, 33), first=30)},
        quiet(240, alert),
        firing(270, alert, domain="adapter", key="cache", provider="redis"),
        quiet(420, alert),
    )
    yield scenario(
        "health: two probes fail", {HEALTH: steps((60, 31), (90, 32), first=30)}, quiet(240, alert), quiet(330, alert)
    )


def _instances() -> Iterator[Scenario]:
    high, extreme = "OneiricActiveInstancesHigh", "OneiricActiveInstancesExtremelyHigh"

    def instances(number: int, until: float = inf) -> dict[str, Line]:
        return {
            of(SWAPS, *SWAPPED): steps((60, 39 + number), first=40),
            ACTIVE: steps((60, number), (until, 1), first=1),
            CLEANUPS: steps((until, 45 + number), first=46),
        }

    yield scenario(
        "instances: 200", instances(200, 400), quiet(180, extreme), firing(210, extreme), quiet(435, extreme)
    )
    yield scenario("instances: 199", instances(199), quiet(210, extreme), quiet(600, extreme))
    yield scenario("instances: 300 for a minute", instances(300, 120), quiet(150, extreme), quiet(300, extreme))
    yield scenario("instances: 100", instances(100, 400), quiet(180, high), firing(210, high), quiet(435, high))
    yield scenario("instances: 99", instances(99), quiet(210, high), quiet(600, high))
    alert = "OneiricInstanceLeak"
    yield scenario(
        "leak: one is not cleaned up, until it is",
        {of(SWAPS, *SWAPPED): steps((60, 41), first=40), CLEANUPS: steps((400, 47), first=46)},
        quiet(180, alert),
        firing(210, alert),
        quiet(435, alert),
    )
    yield scenario(
        "leak: an old instance drains for 90 s",
        {of(SWAPS, *SWAPPED): steps((60, 41), first=40), CLEANUPS: steps((150, 47), first=46)},
        quiet(165, alert),
        quiet(300, alert),
    )
    alert = "OneiricMemoryGrowing"

    def grown(first: float, by: float) -> dict[str, Line]:
        return {ACTIVE: flat(1), RESIDENT: rising(by * 1e6 / 1800, until=2100, first=first * 1e6)}

    yield bare(
        "memory: 115 MB more than 500, in half an hour",
        grown(500, 115),
        quiet(1920, alert),
        firing(1950, alert),
        quiet(3300, alert),
    )
    yield bare("memory: 80 MB more than 300", grown(300, 80), firing(1950, alert))
    yield bare("memory: 60 MB more than 250", grown(250, 60), quiet(1950, alert), quiet(2400, alert))
    yield bare("memory: 90 MB more than 500", grown(500, 90), quiet(1950, alert), quiet(2400, alert))
    yield bare(
        "memory: more, with more instances",
        {**grown(500, 115), ACTIVE: rising(1 / 600, first=1)},
        quiet(1950, alert),
        quiet(3000, alert),
    )


def _remote() -> Iterator[Scenario]:
    alert = "OneiricRemoteSyncConsecutiveFailures"
    yield scenario(
        "sync: three failures in a row, then a success",
        {CONSECUTIVE: steps((60, 3), (300, 0))},
        quiet(60, alert),
        firing(90, alert, source="remote"),
        quiet(330, alert),
    )
    yield scenario("sync: two failures in a row", {CONSECUTIVE: steps((60, 2))}, quiet(90, alert), quiet(600, alert))
    failed = {
        of("oneiric_remote_sync_total", outcome, "remote"): rising(0.05, first=5) for outcome in ("success", "failed")
    }
    yield scenario("sync: many failures, none in a row", failed, quiet(300, alert), quiet(600, alert))
    alert = "OneiricCircuitBreakerOpen"
    yield scenario(
        "breaker: opens and closes",
        {BREAKER: steps((60, 1), (120, 0))},
        quiet(60, alert),
        firing(90, alert),
        quiet(150, alert),
    )
    yield scenario("breaker: closed after two failures", {CONSECUTIVE: flat(2)}, quiet(300, alert))
    alert = "OneiricDigestVerificationFailed"
    once = {WRONG_DIGESTS: steps((60, 3), first=2)}
    yield scenario(
        "digest: one wrong artifact, healed at once",
        once,
        quiet(60, alert),
        firing(90, alert, 1, component="security"),
        firing(345, alert),
        quiet(390, alert),
    )
    yield scenario(
        "digest: evidence that nothing replaced is one alert, and lasts",
        {**once, QUARANTINED: steps((60, 1), (600, 0))},
        firing(90, alert, 1),
        firing(585, alert, 1),
        quiet(630, alert),
    )
    right = {of("oneiric_remote_digest_checks_total", "success"): rising(1)}
    yield scenario("digest: many right artifacts", right, quiet(300, alert))
    alert = "OneiricSignatureVerificationFailed"
    yield scenario(
        "signature: one refused",
        {WRONG_SIGNATURES: steps((60, 2), first=1)},
        quiet(60, alert),
        firing(90, alert, source="remote", component="security"),
        firing(345, alert),
        quiet(390, alert),
    )
    good = {of("oneiric_remote_signature_checks_total", "success", "remote"): rising(0.1)}
    yield scenario("signature: all accepted", good, quiet(300, alert))
    alert = "OneiricRemoteSyncStale"
    yield scenario(
        "stale: no success for 15 minutes",
        {SUCCEEDED_AT: steps((1500, 1500))},
        quiet(960, alert),
        firing(990, alert),
        quiet(1530, alert),
    )
    yield scenario("stale: an hourly refresh", {REFRESH: flat(3600)}, quiet(1200, alert))
    yield scenario(
        "stale: a minute after the last",
        {SUCCEEDED_AT: lambda at: at // 300 * 300},
        quiet(990, alert),
        quiet(1500, alert),
    )
    alert = "OneiricManifestExpiring"
    yield scenario(
        "expiry: in less than three days, then renewed",
        {EXPIRES_AT: steps((600, 30 * DAY), first=3 * DAY + 300)},
        quiet(345, alert),
        firing(390, alert),
        quiet(630, alert),
    )
    yield scenario("expiry: none", {EXPIRES_AT: flat(0)}, quiet(300, alert))


def _daemon() -> Iterator[Scenario]:
    alert = "OneiricDown"
    yield scenario(
        "down: stopped, then started", down(60, 400), quiet(120, alert), firing(150, alert), quiet(435, alert)
    )
    yield scenario("down: one scrape is missed", down(60, 75), quiet(90, alert), quiet(150, alert))
    yield Scenario("down: never there", {}, [quiet(45, alert), firing(75, alert), firing(75, "Watchdog")])
    yield scenario("watchdog: always fires", {}, firing(15, "Watchdog"), firing(600, "Watchdog"))
    yield scenario(
        "well: nothing fires but the watchdog",
        {**traffic(0.001), **attempts(3)},
        *(
            Expected(at, 'count(ALERTS{alertstate="firing",alertname!="Watchdog"}) or vector(0)', 0)
            for at in (90, 330, 900)
        ),
    )
    alert = "OneiricRestarted"
    restarted = {STARTED: steps((60, 50), first=LONG_AGO)}
    yield scenario("restart", restarted, quiet(60, alert), firing(90, alert), firing(345, alert), quiet(360, alert))
    yield scenario("restart: long ago", {}, quiet(300, alert))
    alert = "OneiricEventLoopLag"
    yield scenario(
        "lag: 1.1 s", {LAG: steps((60, 1.1), (300, 0))}, quiet(180, alert), firing(210, alert), quiet(330, alert)
    )
    yield scenario("lag: 1 s", {LAG: flat(1)}, quiet(210, alert), quiet(600, alert))
    yield scenario("lag: for a minute", {LAG: steps((60, 5), (120, 0))}, quiet(180, alert), quiet(240, alert))


def _burns(
    long: str, short: float, limit: float, hold: float, severity: str, priority: str, *, interval: int
) -> Iterator[Scenario]:
    """Yield what one pair of windows does; *short* and *hold* are in seconds, *limit* is the part that may fail."""
    alert = "OneiricResolutionErrorBudgetBurn"
    yield bare(
        f"burn {long}: the long window passes the limit after the short one",
        varying((0, 0), (short, limit * 4 / 3)),
        firing(4 * short + 0.9 * hold, alert, 0, long=long),
        firing(4 * short + hold + 4 * interval, alert, 1, long=long, severity=severity, priority=priority),
        interval=interval,
    )
    yield bare(
        f"burn {long}: the short window recovers before the long one",
        varying((0, 2 * limit), (3 * short, 0.85 * limit)),
        firing(3.8 * short, alert, 1, long=long),
        firing(3.95 * short, alert, 0, long=long),
        interval=interval,
    )
    yield bare(
        f"burn {long}: nine tenths of the limit",
        traffic(0.9 * limit),
        firing(2 * short, alert, 0, long=long),
        interval=interval,
    )
