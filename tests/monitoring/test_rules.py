"""The rules: what promtool and the catalog say of them, and what the recording rules read."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from oneiric.monitoring.__main__ import files
from oneiric.monitoring.alerts import TROUBLE, Alert, alerts
from oneiric.monitoring.profiles import DRILL, PROD
from oneiric.monitoring.rules import recordings, rules
from tests.adapters.redis_server import require_program
from tests.harness.dashboards import Target, promql_faults
from tests.harness.promtool import INSTALL, Expected, Scenario, complaints, described, firing
from tests.monitoring.boundaries import (
    ACTIVE,
    CONSECUTIVE,
    attempts,
    down,
    flat,
    scenario,
    traffic,
)

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deployment" / "monitoring" / "prometheus"
RULES = (FILES / "rules" / "oneiric.yml").read_text()
ALERTING = [rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"] if "alert" in rule]
RESOLUTION, SWAPS, SYNCS = (
    "oneiric:resolution_success_rate_global:5m",
    "oneiric:lifecycle_swap_success_rate:5m",
    "oneiric:remote_sync_success_rate:5m",
)
INSTANCES, MEMORY = "oneiric:system_active_instances_total:5m", "oneiric:system_memory_usage_estimate_bytes:5m"
_DURATION = re.compile(r"\b\d+[smhd]\b")
_SECONDS = re.compile(r"(?<=[<,] )\d+(?=\)| and|$)")


def queries() -> dict[str, str]:
    """Return every query of the rules, those in descriptions among them, by where it stands."""
    found = dict(recordings(PROD))
    for rule in ALERTING:
        name = f"{rule['alert']} {rule['labels'].get('long', '')}"
        found[name] = rule["expr"]
        for number, query in enumerate(re.findall(r'query "([^"]+)"', rule["annotations"]["description"])):
            found[f"{name} description {number}"] = query
    return found


def faults(query: str) -> list[str]:
    """Return what is wrong with a query; its windows are its own, where those of a dashboard are a variable."""
    found = promql_faults(Target("rules", "", "", "prometheus", query))
    return [fault for fault in found if not fault.startswith("window ")]


# Files


@pytest.mark.parametrize("name", files())
def test_generated_file_is_what_the_source_writes(name: str) -> None:
    assert (ROOT / name).read_text() == files()[name], "try: make monitoring"


@pytest.mark.parametrize("name", ["oneiric.yml", "oneiric.drill.yml"])
def test_rule_file_passes_every_lint(name: str) -> None:
    command = [require_program("promtool", INSTALL), "check", "rules", "--lint=all", "--lint-fatal"]
    done = subprocess.run([*command, str(FILES / "rules" / name)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_is_not_blind(tmp_path: Path) -> None:
    twice = yaml.safe_load(RULES)
    twice["groups"][0]["rules"] *= 2
    path = tmp_path / "twice.yml"
    path.write_text(json.dumps(twice))
    command = [require_program("promtool", INSTALL), "check", "rules", "--lint=all", "--lint-fatal", str(path)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


def without_durations(text: str) -> str:
    """Return rules with every duration replaced, whether it is written as one or as a number of seconds."""
    groups = yaml.safe_load(text)["groups"]
    for group in groups:
        for rule in group["rules"]:
            rule["expr"] = _SECONDS.sub("DURATION", rule["expr"])
            if "annotations" in rule:
                clears = rule["annotations"]["clears_when"]
                rule["annotations"]["clears_when"] = re.sub(r"^\d+ s", "DURATION s", clears)
    return _recorded_kept(json.dumps(groups))


def _recorded_kept(text: str) -> str:
    return re.sub(rf"(?<!:){_DURATION.pattern}", "DURATION", text)


def test_profiles_differ_in_durations_only() -> None:
    assert without_durations(rules(DRILL)) == without_durations(rules(PROD))


def test_profiles_differ_in_every_kind_of_duration() -> None:
    same = [name for name in PROD._fields if getattr(PROD, name) == getattr(DRILL, name)]
    assert same == []


def test_changed_threshold_is_no_duration() -> None:
    assert without_durations(RULES.replace(">= 200", ">= 20")) != without_durations(RULES)


# Names


@pytest.mark.parametrize("where", queries())
def test_query_names_only_what_the_catalog_has(where: str) -> None:
    assert faults(queries()[where]) == []


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ('oneiric_resolution_total{outcome="failure"}', "outcome is never failure"),
        ("oneiric_resolutions_total", "no metric oneiric_resolutions_total"),
        ('oneiric_resolution_total{provider="redis"}', "oneiric_resolution_total has no label provider"),
    ],
)
def test_wrong_name_is_noticed(query: str, fault: str) -> None:
    assert fault in faults(query)


def test_recording_rules_have_the_names_of_the_runbook() -> None:
    assert set(recordings(PROD)) == {RESOLUTION, SWAPS, SYNCS, INSTANCES, MEMORY}


def test_both_sides_of_an_or_have_the_same_labels() -> None:
    uneven = {where: sides for where, query in queries().items() for sides in _uneven(promql.parse(query))}
    assert uneven == {}


def _uneven(node: Any) -> list[tuple[set[str], set[str]]]:
    if isinstance(node, promql.ParenExpr):
        return _uneven(node.expr)
    if not isinstance(node, promql.BinaryExpr):
        return []
    sides = _grouping(node.lhs), _grouping(node.rhs)
    found = [sides] if str(node.op) == "or" and sides[0] != sides[1] else []
    return [*found, *_uneven(node.lhs), *_uneven(node.rhs)]


def _grouping(node: Any) -> set[str]:
    """Return the labels that an expression made of aggregates has."""
    if isinstance(node, promql.AggregateExpr):
        return set(node.modifier.labels) if node.modifier else set()
    if isinstance(node, promql.BinaryExpr):
        return _grouping(node.lhs) | (_grouping(node.rhs) if str(node.op) in {"or", "/"} else set())
    if isinstance(node, promql.Call):
        return {label for argument in node.args for label in _grouping(argument)}
    if isinstance(node, promql.VectorSelector):
        return {"labels of " + node.name}
    return _grouping(node.expr) if hasattr(node, "expr") else set()


# Alerts


@pytest.mark.parametrize("rule", ALERTING, ids=lambda rule: rule["alert"] + rule["labels"].get("long", ""))
def test_alert_says_all_that_somebody_needs(rule: dict[str, Any]) -> None:
    labels, annotations = rule["labels"], rule["annotations"]
    assert labels["severity"] in {"critical", "warning", "info", "none"}
    assert labels["priority"] in {"P0", "P1", "P2", "P3"}
    assert labels["component"]
    wanted = {"summary", "description", "runbook_url", "dashboard_url", "clears_when"}
    assert {name for name, text in annotations.items() if text} == wanted
    assert "{{" not in annotations["summary"] + annotations["clears_when"]


def test_failed_swaps_are_counted_in_the_description(tmp_path: Path) -> None:
    alert = "OneiricLifecycleSwapFailureRateHigh"
    one = scenario("five attempts", attempts(3, failed=1, rolled_back=1, at=400), firing(480, alert))
    (text,) = described(one, RULES, tmp_path, alert=alert, at=480)
    assert text.startswith("2 of 5 attempts to put an instance in place failed in 5m: 40%.")


def anchors(path: Path) -> set[str]:
    """Return what links into a page can lead to, as GitHub has it."""
    text = path.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", alerts(PROD), ids=lambda alert: alert.name + dict(alert.labels).get("long", ""))
def test_runbook_of_an_alert_is_where_its_link_leads(alert: Alert) -> None:
    path, _, anchor = alert.anchor.partition("#")
    assert anchor in anchors(ROOT / path)


def test_page_has_every_place_that_links_lead_to() -> None:
    path = ROOT / "docs" / "reference" / "alerts.md"
    wanted = {alert.name.lower() for alert in alerts(PROD)} | set(re.findall(r"\]\(#([^)]+)\)", path.read_text()))
    assert wanted - anchors(path) == set()


def test_alert_without_a_runbook_of_its_own_is_treated_under_its_name() -> None:
    found = {alert.name: alert.anchor for alert in alerts(PROD) if not alert.runbook}
    assert found == {name: f"{TROUBLE}#{name.lower()}" for name in found}


def test_only_security_alerts_are_of_the_component_security() -> None:
    found = {rule["alert"] for rule in ALERTING if rule["labels"]["component"] == "security"}
    assert found == {"OneiricDigestVerificationFailed", "OneiricSignatureVerificationFailed"}


def test_places_can_be_chosen() -> None:
    text = rules(PROD, runbooks="https://docs.example.org/", grafana="https://grafana.example.org")
    assert "runbook_url: https://docs.example.org/docs/runbooks/INCIDENT_RESPONSE.md#runbook-1-" in text
    assert "dashboard_url: https://grafana.example.org/d/oneiric-resolution" in text


def test_page_tells_of_every_alert() -> None:
    page = (ROOT / "docs" / "reference" / "alerts.md").read_text()
    titles = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    assert titles == list(dict.fromkeys(rule["alert"] for rule in ALERTING))
    assert "{{" not in page


# Recording rules


def reads(at: float, rule: str, value: float | None) -> Expected:
    """Expect that a recording rule has a value, to a millionth, or none."""
    return Expected(at, rule if value is None else f"round({rule}, 1e-6)", value)


READINGS = (
    scenario(
        "nobody does anything",
        {},
        *(reads(300, rule, 1) for rule in (RESOLUTION, SWAPS, SYNCS, INSTANCES)),
        reads(300, MEMORY, 50 * 1024 * 1024),
    ),
    scenario("a tenth of the resolutions fails", traffic(0.1), reads(300, RESOLUTION, 0.9)),
    scenario("a quarter of the swaps fails", attempts(3, rolled_back=1), reads(300, SWAPS, 0.75)),
    scenario("the last synchronisation failed long ago", {CONSECUTIVE: flat(2)}, reads(300, SYNCS, 0)),
    scenario(
        "forty instances", {ACTIVE: flat(40)}, reads(300, INSTANCES, 40), reads(300, MEMORY, 40 * 50 * 1024 * 1024)
    ),
    scenario(
        "the daemon is down",
        down(60),
        *(reads(45, rule, 1) for rule in (RESOLUTION, SWAPS, SYNCS)),
        *(reads(120, rule, None) for rule in (RESOLUTION, SWAPS, SYNCS, INSTANCES, MEMORY)),
    ),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return complaints(READINGS, RULES, tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("one", READINGS, ids=lambda one: one.name)
def test_recording_rule_reads_what_is_true(one: Scenario, found: dict[str, list[str]]) -> None:
    assert found[one.name] == []
