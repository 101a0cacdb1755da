"""Every query of the dashboards finds what it should of a daemon that worked and failed: numbers in a real Prometheus,
lines in its log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.publisher.press import new_key
from examples.publisher.serve import Publisher, hang_up, tamper
from tests.harness.daemon import ADAPTERS, Daemon, project, running
from tests.harness.dashboards import Target, fill_in, read_boards, targets
from tests.harness.delivery import Upstream, serving
from tests.harness.logql import ERROR, select
from tests.harness.prometheus import Prometheus, QueryError, Series, write_drill_rules
from tests.monitoring.runbook import PROMQL, SPEC

BOARDS = read_boards(Path(__file__).parents[2] / "deployment" / "monitoring" / "grafana" / "dashboards")
METRIC_TARGETS = [target for board in BOARDS for target in targets(board, "prometheus")]
LOG_TARGETS = [target for board in BOARDS for target in targets(board, "loki")]
RENAMED = "oneiric_lifecycle_swap_failures_total"
DOCTOR = "oneiric_doctor_findings"
MANIFEST = "/manifest.json"

STICKY = """
class Sticky(Memory):
    async def aclose(self):
        raise OSError("will not let go")
"""
OFFERED = f'{ADAPTERS}  - {{key: cache, provider: sticky, factory: "providers:Sticky", priority: -1}}\n'
QUIET = {"Slow swaps in the log", "Throttled and quarantined in the log", "Leaks in the log"}
"""Panels whose events take longer to bring about than a test should."""

FAILURES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("oneiric-resolution", "Failed resolutions", {}),
    ("oneiric-resolution", "Resolution failures by domain", {"domain": "adapter"}),
    ("oneiric-resolution", "Recent error spikes", {"domain": "adapter", "key": "status"}),
    ("oneiric-resolution", "Resolution failures by reason", {"reason": "all-shadowed"}),
    ("oneiric-resolution", "Slots nobody can fill", {}),
    ("oneiric-resolution", "Invalid settings files", {}),
    ("oneiric-resolution", "Alerts firing", {}),
    ("oneiric-lifecycle", "Failed swaps", {}),
    ("oneiric-lifecycle", "Rollbacks", {}),
    ("oneiric-lifecycle", "Rollback rate", {"provider": "sick"}),
    ("oneiric-lifecycle", "Swap failure reasons", {"reason": "factory"}),
    ("oneiric-lifecycle", "Swap failure reasons", {"reason": "health-check"}),
    ("oneiric-lifecycle", "Failed swaps by slot", {"provider": "lost"}),
    ("oneiric-lifecycle", "Failed health checks by provider", {"provider": "sick"}),
    ("oneiric-lifecycle", "Failed cleanups", {}),
    ("oneiric-remote", "Failed syncs in a row over time", {"source": "remote"}),
    ("oneiric-remote", "Digest mismatches", {}),
    ("oneiric-remote", "Failed signature checks", {}),
    ("oneiric-performance", "Leaked instances", {}),
)
"""Panels of what went wrong, and the series that must tell of it."""


class Live(NamedTuple):
    """A Prometheus, when it had seen all that happened, and what the daemon has logged."""

    prometheus: Prometheus
    at: float
    lines: tuple[str, ...]


def swap(daemon: Daemon) -> None:
    """Swap well, swap badly, probe what is not well, pause and resume."""
    slot = ("--domain", "adapter", "--key", "cache")
    for provider in ("sticky", "redis", "sick", "exploding", "lost"):
        daemon.cli("swap", *slot, "--provider", provider)
    (daemon.directory / "sick").touch()
    daemon.cli("health", "--probe", *slot)
    (daemon.directory / "sick").unlink()
    for command in ("unpin", "pause", "resume"):
        daemon.cli(command, *slot)


def change_settings(daemon: Daemon) -> None:
    """Select another provider, and one that nobody offers; then write what is no settings at all."""
    settings = daemon.directory / "settings" / "adapters.yml"
    settings.write_text(OFFERED.replace("{cache: memory}", "{cache: redis, status: nobody}"))
    daemon.wait_event("config-changed", domain="adapter")
    daemon.wait_event("resolver-decision", outcome="failed")
    settings.write_text("selections: [\n")
    daemon.wait_event("config-rejected")


def synchronise(daemon: Daemon, upstream: Upstream, publisher: Publisher, prometheus: Prometheus) -> None:
    """Fail for three reasons, until the circuit breaker opens; then succeed."""
    daemon.wait_event("remote-sync-complete")
    publisher.faults[MANIFEST] = hang_up
    daemon.cli("remote-sync")
    publisher.faults.clear()
    upstream.publish(signer=new_key())
    daemon.cli("remote-sync")
    upstream.publish(upstream.entry("2.0"))
    publisher.faults["/upstream-2.0-py3-none-any.whl"] = tamper
    daemon.cli("remote-sync")
    daemon.wait_event("circuit-breaker-changed", state="open")
    prometheus.wait_for("oneiric_remote_sync_consecutive_failures > 0")
    publisher.faults.clear()
    daemon.cli("remote-sync", "--force")
    daemon.wait_event("remote-sync-complete", count=2)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    place = tmp_path_factory.mktemp("dashboards")
    upstream = Upstream(place / "up")
    upstream.publish()
    with serving(upstream) as publisher:
        directory = project(place / "p", app=upstream.settings(publisher.url), adapters=OFFERED)
        with (directory / "providers.py").open("a") as providers:
            providers.write(STICKY)
        with (
            running(directory) as daemon,
            Prometheus(place / "q", {"oneiric": [daemon.http]}, rule_files=[write_drill_rules(place)]) as prometheus,
        ):
            prometheus.wait_scraped("oneiric")
            swap(daemon)
            change_settings(daemon)
            prometheus.wait_for(f"{DOCTOR} > 0", timeout=30)
            synchronise(daemon, upstream, publisher, prometheus)
            prometheus.wait_for('increase(oneiric_remote_digest_checks_total{outcome="failed"}[4s]) > 0')
            prometheus.wait_for("oneiric_remote_sync_consecutive_failures == 0")
            prometheus.wait_for('count_over_time(up{job="oneiric"}[1m]) > 6')  # a window, and what was before it
            prometheus.wait_for('ALERTS{alertname="OneiricConfigInvalid", alertstate="firing"}')
            yield Live(prometheus, time.time(), tuple(daemon.lines))


def ask(live: Live, target: Target) -> list[Series]:
    """Return what *target* finds then, or in the half minute before; the window is four scrapes, as in Grafana."""
    expr = fill_in(target.expr, window="4s", view="30s")
    return live.prometheus.query(expr, at=live.at) if target.instant else live.prometheus.query_range(expr, at=live.at)


def complaint(live: Live, target: Target) -> str:
    """Return what is wrong with what *target* finds, or nothing."""
    try:
        found = ask(live, target)
    except QueryError as error:
        return str(error)
    if not found:
        return "nothing found"
    return "no numbers" if all(series.empty for series in found) else ""


@pytest.mark.parametrize("target", METRIC_TARGETS, ids=lambda target: target.name)
def test_panel_finds_numbers(live: Live, target: Target) -> None:
    assert complaint(live, target) == ""


@pytest.mark.parametrize("line", PROMQL)
def test_promql_of_the_runbook_finds_numbers(live: Live, line: int) -> None:
    found = live.prometheus.query(PROMQL[line], at=live.at)
    assert [series for series in found if not series.empty] != []


@pytest.mark.skipif(not SPEC.exists(), reason=f"the specification is not at {SPEC}")
def test_promql_of_the_runbook_is_what_stands_there() -> None:
    lines = SPEC.read_text(encoding="utf-8").splitlines()
    assert [(line, query) for line, query in PROMQL.items() if query not in lines[line - 1]] == []


@pytest.mark.parametrize(("board", "panel", "labels"), FAILURES, ids=lambda value: str(value))
def test_panel_shows_a_failure_that_happened_once(live: Live, board: str, panel: str, labels: dict[str, str]) -> None:
    target = next(one for one in METRIC_TARGETS if (one.board, one.panel) == (board, panel))
    shown = [series for series in ask(live, target) if labels.items() <= series.labels.items()]
    assert max(max(series.values) for series in shown) > 0


def test_check_reports_exactly_the_queries_that_name_a_renamed_metric(live: Live) -> None:
    boards = json.loads(json.dumps(BOARDS).replace(RENAMED, "oneiric_lifecycle_swap_woes_total"))
    changed = [target for board in boards for target in targets(board, "prometheus")]
    reported = {target.name for target in changed if complaint(live, target)}
    named = {target.name for target in METRIC_TARGETS if RENAMED in target.expr}
    assert reported == named != set()


@pytest.mark.parametrize("target", [one for one in LOG_TARGETS if one.panel not in QUIET], ids=lambda one: one.name)
def test_log_panel_finds_lines_without_errors(live: Live, target: Target) -> None:
    found = select(fill_in(target.expr, window="4s", view="30s"), live.lines)
    assert [line.labels.get(ERROR) for line in found] == [None] * len(found) != []
