"""Rules on a virtual clock: what a daemon would have been scraped for, and what promtool makes of it.

Targets are scraped a third of an interval after the rules were evaluated, as hardly any real ones are scraped at the
same instant: a window then holds one sample less than it is long, and ``increase`` extrapolates.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from oneiric.observability.catalog import METRICS
from oneiric.observability.meters import Reading, Spread
from tests.adapters.redis_server import require_program

INSTALL = "apt-get install -y --no-install-recommends prometheus"
GROUPS = ["oneiric-recordings", "oneiric-alerts"]
INTERVAL = 15
TARGET = {"job": "oneiric", "instance": "127.0.0.1:9464"}
_SLOTS = 3  # of an interval; the scrape falls into the second one

_COMPLAINT = re.compile(r'expr: ".* # (.+)", time: (\w+),\s+exp:\s*(.+)\s+got:\s*(.+)')

Line = Callable[[float], float | None]
"""The value of a series at a time in seconds; None while nobody answers a scrape."""
Values = Sequence[float | None]


class Expected(NamedTuple):
    """What a query finds at a time in seconds: one value, or None for nothing."""

    at: float
    query: str
    value: float | None


class Scenario(NamedTuple):
    """Series by their names, one value for each scrape, and what the rules make of them."""

    name: str
    series: Mapping[str, Values]
    expected: Sequence[Expected]


def firing(at: float, alert: str, count: int = 1, **labels: str) -> Expected:
    """Expect that at that time *count* alerts of a name, and with these labels, fire."""
    wanted = "".join(f',{name}="{value}"' for name, value in labels.items())
    return Expected(at, f'count(ALERTS{{alertname="{alert}",alertstate="firing"{wanted}}}) or vector(0)', count)


def quiet(at: float, alert: str) -> Expected:
    """Expect that at that time no alert of a name fires."""
    return firing(at, alert, 0)


def series(metric: str, **labels: str) -> str:
    """Return the name of a series of the one target."""
    return metric + "{" + ",".join(f'{name}="{value}"' for name, value in {**labels, **TARGET}.items()) + "}"


def scraped(lines: Mapping[str, Line], seconds: float, *, interval: int = INTERVAL) -> dict[str, Values]:
    """Return the values that scrapes find on *lines*, for so many seconds."""
    times = [scrape_at(number, interval) for number in range(int(seconds // interval) + 1)]
    return {name: [line(at) for at in times] for name, line in lines.items()}


def scrape_at(number: int, interval: int = INTERVAL) -> float:
    """Return when a scrape happens."""
    return (number + 1 / _SLOTS) * interval


def recorded(snapshots: Iterable[Iterable[Reading]]) -> dict[str, Values]:
    """Return the series of a process that read *snapshots*, one at each scrape."""
    found: dict[str, list[float | None]] = {}
    number = 0
    for number, readings in enumerate(snapshots, 1):
        for reading in readings:
            for name, value in _exposed(reading):
                values = found.setdefault(name, [])
                values += [None] * (number - 1 - len(values))
                values.append(value)
    return {name: values + [None] * (number - len(values)) for name, values in found.items()}


def _exposed(reading: Reading) -> Iterable[tuple[str, float]]:
    metric = METRICS[reading.metric]
    labels = dict(zip(metric.labels, reading.labels, strict=True))
    if not isinstance(reading, Spread):
        yield series(reading.metric, **labels), reading.value
        return
    bounds = (*(str(float(bound)) for bound in metric.buckets), "+Inf")
    for bound, count in zip(bounds, accumulate(reading.counts), strict=True):
        yield series(f"{reading.metric}_bucket", **labels, le=bound), count
    yield series(f"{reading.metric}_count", **labels), sum(reading.counts)
    yield series(f"{reading.metric}_sum", **labels), reading.total


def complaints(
    scenarios: Sequence[Scenario], rules: str, directory: Path, *, interval: int = INTERVAL
) -> dict[str, list[str]]:
    """Return what was not as expected, by scenario.

    Args:
        rules: the content of a rule file.
        interval: seconds between two scrapes, and between two evaluations.
    """
    names = [scenario.name for scenario in scenarios]
    assert len(set(names)) == len(names), "scenarios need names of their own"
    failed, output = _run([_test(scenario, interval) for scenario in scenarios], rules, directory, interval)
    found: dict[str, list[str]] = {name: [] for name in names}
    for name, at, expected, got in _COMPLAINT.findall(output):
        found[name].append(f"at {at} expected {expected}, got {got}")
    assert failed == any(found.values()), output
    return found


def described(scenario: Scenario, rules: str, directory: Path, *, alert: str, at: float) -> list[str]:
    """Return the descriptions of the alerts of that name that fire at a time in seconds."""
    wanted = {"eval_time": f"{at:g}s", "alertname": alert, "exp_alerts": []}  # which promtool says is not so
    _, output = _run([{**_test(scenario, INTERVAL), "alert_rule_test": [wanted]}], rules, directory, INTERVAL)
    return re.findall(r'description="((?:[^"\\]|\\.)*)"', output)


def _run(tests: Sequence[Mapping[str, object]], rules: str, directory: Path, interval: int) -> tuple[bool, str]:
    """Run promtool; return whether it failed, and what it printed."""
    (directory / "rules.yml").write_text(rules)
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{interval}s",
        "group_eval_order": GROUPS,
        "tests": list(tests),
    }
    (directory / "tests.yml").write_text(json.dumps(document))
    done = subprocess.run(
        [require_program("promtool", INSTALL), "test", "rules", "tests.yml"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode != 0, done.stdout + done.stderr


def _test(scenario: Scenario, interval: int) -> dict[str, object]:
    return {
        "name": scenario.name,
        "interval": f"{interval // _SLOTS}s",
        "input_series": [{"series": name, "values": _notation(values)} for name, values in scenario.series.items()],
        "promql_expr_test": [
            {
                "expr": f"{expected.query} # {scenario.name}",  # promtool 2.42 does not say which test it complains of
                "eval_time": f"{round(expected.at * 1000)}ms",
                "exp_samples": [] if expected.value is None else [{"labels": "{}", "value": expected.value}],
            }
            for expected in scenario.expected
        ],
    }


def _notation(values: Values) -> str:
    """Return *values* as promtool reads them; a series ends where it is no longer scraped."""
    written: list[str] = []
    there = False
    for value in values:
        sample = "stale" if value is None and there else "_" if value is None else repr(float(value))
        there = value is not None
        written += ["_", sample, "_"]
    return " ".join(written)
