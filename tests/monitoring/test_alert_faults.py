"""Real faults, and the rules of production on what was scraped meanwhile: alerts fire, and clear when they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.promtool import complaints
from tests.monitoring.faults import FAULTS, play

RULES = (Path(__file__).parents[2] / "deployment/monitoring/prometheus/rules/oneiric.yml").read_text()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What promtool complains about: of all faults at once, as its start takes longer than most of them."""
    played = [play(fault, tmp_path_factory.mktemp("fault")) for fault in FAULTS]
    return complaints(played, RULES, tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_alert_tells_of_the_fault(name: str, found: dict[str, list[str]]) -> None:
    assert found[name] == []
