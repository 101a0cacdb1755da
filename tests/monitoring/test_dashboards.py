"""The dashboards are what their source writes, keep the rules, and ask only for what is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneiric.monitoring.alerts import INCIDENTS, alerts
from oneiric.monitoring.profiles import PROD
from oneiric.observability.catalog import EVENTS, METRICS
from tests.harness.dashboards import (
    Target,
    faults,
    logql_faults,
    metrics_of,
    panels,
    promql_faults,
    read_boards,
    targets,
)

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deployment" / "monitoring"
GRAFANA = MONITORING / "grafana"
RUNBOOK = ROOT / INCIDENTS
BOARDS = {board["uid"]: board for board in read_boards(GRAFANA / "dashboards")}
METRIC_TARGETS = [target for board in BOARDS.values() for target in targets(board, "prometheus")]
LOG_TARGETS = [target for board in BOARDS.values() for target in targets(board, "loki")]
RENAMED = "oneiric_lifecycle_swap_failures_total"

# What the runbook tells a reader to look at, and what it asks the log for
SHOWN = {
    "oneiric-resolution": ("Resolution success rate", "Resolution failures by domain", "Recent error spikes"),
    "oneiric-lifecycle": ("Swap success rate", "Rollback rate", "Swap failure reasons"),
    "oneiric-remote": ("Sync success rate", "Last sync time", "Sync latency"),
    "oneiric-performance": ("Active instances count", "Memory usage estimate", "Memory growth rate"),
}
NUMBERS: dict[tuple[str, str], set[float]] = {
    ("oneiric-resolution", "Resolution success rate"): {0.95, 0.99},
    ("oneiric-resolution", "Resolution error rate"): {5},
    ("oneiric-lifecycle", "Swap success rate"): {0.9, 0.95},
    ("oneiric-lifecycle", "Swap duration"): {10_000},
    ("oneiric-remote", "Sync success rate"): {0.99},
    ("oneiric-remote", "Failed syncs in a row"): {3},
    ("oneiric-performance", "Active instances count"): {100, 200},
}
QUERIED = (
    "resolver-decision",
    "health-check-failed",
    "swap-failed",
    "swap-rollback",
    "swap-complete",
    "cleanup-started",
    "cleanup-complete",
    "cleanup-failed",
    "remote-sync-error",
    "signature-verification-failed",
    "digest-check-failed",
    "digest-check-success",
    "instance-activated",
    "config-changed",
)


def anchors(markdown: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def panel(uid: str, title: str) -> dict[str, Any]:
    """Return one panel."""
    return next(dict(one) for one in panels(BOARDS[uid]) if one["title"] == title)


def test_dashboards_are_what_the_source_writes(tmp_path: Path) -> None:
    source = MONITORING / "source" / "dashboards.py"
    subprocess.run([sys.executable, source, "--output", tmp_path], check=True, timeout=60)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    committed = {path.relative_to(GRAFANA): path.read_bytes() for path in GRAFANA.rglob("*.*")}
    assert written == committed


def test_dashboards_are_those_the_runbook_opens() -> None:
    assert set(BOARDS) == set(SHOWN)


@pytest.mark.parametrize("uid", BOARDS)
def test_dashboard_keeps_the_rules(uid: str) -> None:
    assert faults(BOARDS[uid]) == []


@pytest.mark.parametrize("uid", SHOWN)
def test_dashboard_shows_what_the_runbook_says(uid: str) -> None:
    assert set(SHOWN[uid]) <= {one["title"] for one in panels(BOARDS[uid])}


@pytest.mark.parametrize(("uid", "title"), NUMBERS)
def test_panel_colours_change_at_the_numbers_of_the_runbook(uid: str, title: str) -> None:
    steps = panel(uid, title)["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert NUMBERS[uid, title] <= {step["value"] for step in steps}


@pytest.mark.parametrize("target", METRIC_TARGETS, ids=lambda target: target.name)
def test_promql_names_what_the_catalog_has(target: Target) -> None:
    assert promql_faults(target) == []


@pytest.mark.parametrize("target", LOG_TARGETS, ids=lambda target: target.name)
def test_logql_names_events_and_their_fields(target: Target) -> None:
    assert logql_faults(target) == []


def test_every_metric_is_on_a_panel() -> None:
    shown = {metric for target in METRIC_TARGETS for metric in metrics_of(target)}
    assert set(METRICS) - shown == set()


def test_every_event_the_runbook_asks_for_is_on_a_log_panel() -> None:
    asked = " ".join(target.expr for target in LOG_TARGETS if not target.panel.startswith("annotation"))
    assert [event for event in QUERIED if not re.search(rf'[|"]{event}[|"]', asked)] == []


def test_links_lead_to_headings_of_the_runbook() -> None:
    if not RUNBOOK.exists():
        pytest.skip(f"{RUNBOOK.relative_to(ROOT)} is not written yet")
    linked = set(re.findall(r"INCIDENT_RESPONSE\.md#([\w-]+)", json.dumps(list(BOARDS.values()))))
    assert linked - anchors(RUNBOOK.read_text()) == set()


def test_links_begin_where_the_repository_can_be_read(tmp_path: Path) -> None:
    source = MONITORING / "source" / "dashboards.py"
    where = "https://example.com/oneiric/"
    subprocess.run([sys.executable, source, "--output", tmp_path, "--runbooks", where], check=True, timeout=60)
    written = (tmp_path / "dashboards" / "oneiric-remote.json").read_text()
    links = re.findall(r'"url": "(.*)#', written)
    assert set(links) == {f"{where}{INCIDENTS}"}


def test_alerts_name_dashboards_that_exist() -> None:
    assert {alert.board for alert in alerts(PROD)} <= set(BOARDS)


def test_provisioning_uses_the_kinds_of_source_that_the_dashboards_choose_from() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "oneiric.yml").read_text())
    assert {source["type"] for source in provisioned["datasources"]} == {"prometheus", "loki"}


# Controls: a critic that finds nothing must be one that would find something


def renamed(old: str, new: str) -> list[Any]:
    """Return the dashboards with one name changed everywhere."""
    changed: list[Any] = json.loads(json.dumps(list(BOARDS.values())).replace(old, new))
    return changed


def test_critic_reports_exactly_the_queries_that_name_a_renamed_metric() -> None:
    reported = {
        target.name
        for board in renamed(RENAMED, "oneiric_lifecycle_swap_woes_total")
        for target in targets(board, "prometheus")
        if promql_faults(target)
    }
    assert reported == {target.name for target in METRIC_TARGETS if RENAMED in target.expr} != set()


def test_critic_reports_exactly_the_queries_that_name_a_renamed_event() -> None:
    reported = {
        target.name
        for board in renamed("cleanup-failed", "cleanup-broken")
        for target in targets(board, "loki")
        if logql_faults(target)
    }
    assert reported == {target.name for target in LOG_TARGETS if "cleanup-failed" in target.expr} != set()


def asked(expr: str, legend: str = "") -> Target:
    """Return a query to criticise."""
    return Target("board", "panel", "A", "any", expr, legend)


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("sum(rate(oneiric_remote_sync_total[5m]))", "window 5m"),
        ("oneiric_remote_sync_total offset 1h", "window 1h"),
        ("sum(oneiric_remote_sync_total", "syntax"),
        ('oneiric_remote_sync_total{outcome="rollback"}', "outcome is never rollback"),
        ('oneiric_remote_sync_total{outcome=~"success|broken"}', "outcome is never broken"),
        ('oneiric_remote_sync_total{key="cache"}', "has no label key"),
        ("sum by (key) (oneiric_remote_sync_total)", "no label key to group by"),
        ("rate(oneiric_cache_size_bytes[$__rate_interval])", "of the gauge oneiric_cache_size_bytes"),
        ("oneiric_lifecycle_swap_duration_ms", "is a histogram"),
        ('ALERTS{name="x"}', "has no label name"),
        ("oneiric:swaps:5m", "no metric oneiric:swaps:5m"),
    ],
)
def test_critic_finds_a_fault_in_promql(expr: str, fault: str) -> None:
    assert any(fault in found for found in promql_faults(asked(expr)))


def test_critic_finds_a_legend_that_names_no_label_of_the_result() -> None:
    query = asked("sum by (domain) (oneiric_candidates)", "{{domain}} {{state}}")
    assert promql_faults(query) == ["legend names ['state']"]


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ('{job="x"} | json | event="swap-failed"', "begins with"),
        ('{app="oneiric"} | json | event="swap-fail"', "no event swap-fail"),
        ('{app="oneiric"} | json | event="swap-failed" | gap_ms > 1', "swap-failed has no gap_ms"),
        ('{app="oneiric"} | json | event="swap-failed" | line_format "{{.file}}"', "swap-failed has no file"),
        ('{app="oneiric"} | json | event=~"swap-failed|config-changed" | reason="x"', "config-changed has no reason"),
        ('{app="oneiric"} | json | breaker="open"', "no event has breaker"),
        ('{app="oneiric"} | json | event="remote-sync-unchanged"', "not logged by default"),
        ('{app="oneiric"} | json | logfmt', "unknown stage logfmt"),
    ],
)
def test_critic_finds_a_fault_in_logql(expr: str, fault: str) -> None:
    assert any(fault in found for found in logql_faults(asked(expr)))


SPOILT: dict[str, Callable[[Any, Any], object]] = {
    "description": lambda _, panel: panel.update(description=" "),
    "unit": lambda _, panel: panel["fieldConfig"]["defaults"].update(unit=5),
    "datasource": lambda _, panel: panel["targets"][0]["datasource"].update(uid="prometheus"),
    "legend": lambda _, panel: panel["targets"][0].update(legendFormat=""),
    "legend is hidden": lambda _, panel: panel["options"]["legend"].update(showLegend=False),
    "link to the runbook": lambda _, panel: panel.update(links=[]),
    "no query": lambda _, panel: panel["targets"].clear(),
    "the same refId twice": lambda _, panel: panel["targets"].append(panel["targets"][0]),
    "order of thresholds": lambda _, panel: panel["fieldConfig"]["defaults"]["thresholds"]["steps"].reverse(),
    "on top of another panel": lambda _, panel: panel["gridPos"].update(y=panel["gridPos"]["y"] - 1),
    "beyond the right edge": lambda _, panel: panel["gridPos"].update(w=25),
    "the same id twice": lambda board, panel: panel.update(id=board["panels"][1]["id"]),
    "the same title twice": lambda board, panel: panel.update(title=board["panels"][1]["title"]),
    "refresh": lambda board, _: board.update(refresh=""),
    "time range": lambda board, _: board.update(time={}),
    "uid": lambda board, _: board.update(uid="other"),
    "tag": lambda board, _: board.update(tags=[]),
    "variable loki": lambda board, _: board["templating"]["list"].pop(1),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_critic_finds_a_fault_in_a_panel(fault: str) -> None:
    board = json.loads(json.dumps(BOARDS["oneiric-lifecycle"]))
    SPOILT[fault](board, next(one for one in board["panels"] if one["type"] == "timeseries"))
    assert [found for found in faults(board) if found.endswith(fault) or fault == "unit"] != []


def test_runbook_events_are_in_the_catalog() -> None:
    assert set(QUERIED) <= set(EVENTS)
