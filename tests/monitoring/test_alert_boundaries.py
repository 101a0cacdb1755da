"""The rules of production on a virtual clock: each alert fires past its boundary, not before, and clears."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oneiric.monitoring.alerts import alerts
from oneiric.monitoring.profiles import PROD
from tests.harness.promtool import Scenario, complaints, firing
from tests.monitoring.boundaries import scenario, scenarios, traffic

RULES = (Path(__file__).parents[2] / "deployment/monitoring/prometheus/rules/oneiric.yml").read_text()
BY_INTERVAL = scenarios()
EVERY = [one for scenarios in BY_INTERVAL.values() for one in scenarios]
NAMES = {alert.name for alert in alerts(PROD)}
BURN = "OneiricResolutionErrorBudgetBurn"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What promtool complains about: of many scenarios at once, as its start takes longer than most of them."""
    found: dict[str, list[str]] = {}
    for interval, some in BY_INTERVAL.items():
        found |= complaints(some, RULES, tmp_path_factory.mktemp(f"every-{interval}"), interval=interval)
    return found


def proven(scenario: Scenario, *, fires: bool) -> set[str]:
    """Return the alerts that a scenario expects to fire, or not to."""
    return {
        name
        for expected in scenario.expected
        if bool(expected.value) is fires
        for name in re.findall(r'alertname="(\w+)"', expected.query)
    }


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_alert_is_as_the_scenario_says(one: Scenario, found: dict[str, list[str]]) -> None:
    assert found[one.name] == []


def test_every_alert_has_a_scenario_in_which_it_fires() -> None:
    assert NAMES - {name for one in EVERY for name in proven(one, fires=True)} == set()


def test_every_alert_but_the_watchdog_has_a_scenario_in_which_it_never_fires() -> None:
    calm = {name for one in EVERY for name in proven(one, fires=False) - proven(one, fires=True)}
    assert NAMES - calm == {"Watchdog"}


def test_every_burn_rate_has_a_scenario() -> None:
    asked = " ".join(expected.query for one in EVERY for expected in one.expected if expected.value)
    assert [
        long for long, _, _ in PROD.burn if f'alertname="{BURN}",alertstate="firing",long="{long}"' not in asked
    ] == []


def test_promtool_complains_of_exactly_the_scenario_that_is_wrong(tmp_path: Path) -> None:
    right = scenario("right", traffic(0.06), firing(120, "OneiricResolutionFailureRateHigh"))
    wrong = scenario("wrong", {}, firing(120, "OneiricResolutionFailureRateHigh"))
    found = complaints((right, wrong), RULES, tmp_path)
    assert (found["right"], len(found["wrong"])) == ([], 1)


def test_renamed_metric_is_noticed(tmp_path: Path) -> None:
    one = scenario("renamed", traffic(0.06), firing(120, "OneiricResolutionFailureRateHigh"))
    assert complaints((one,), RULES.replace("oneiric_resolution_total", "oneiric_resolutions_total"), tmp_path)[
        "renamed"
    ]
