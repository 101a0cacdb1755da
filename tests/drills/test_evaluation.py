"""The evaluator that drills use without Prometheus: what it makes of rules, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from oneiric.drills.drill import Drill
from oneiric.drills.evaluation import NAME, Evaluator, Storage, parse
from oneiric.drills.sandbox import DrillFailedError
from oneiric.drills.scenarios import drills
from oneiric.monitoring.alerts import alerts
from oneiric.monitoring.profiles import DRILL
from oneiric.monitoring.rules import recordings

Series = Mapping[str, list[float]]


def evaluator(series: Series) -> Evaluator:
    """Return an evaluator on series that were scraped each second, the last time at the second 10."""
    storage = Storage()
    longest = max(map(len, series.values()), default=0)
    for number in range(longest):
        page = "\n".join(f"{name} {values[number]}" for name, values in series.items() if number < len(values))
        storage.add(10.0 - longest + 1 + number, parse(page))
    return Evaluator(storage)


def value(expression: str, series: Series) -> dict[str, float]:
    """Return what *expression* is at the second 10, by the values of its labels."""
    found = evaluator(series).vector(expression, 10.0)
    return {",".join(value for _, value in sorted(labels)): number for labels, number in found.items()}


CASES = [
    ("a", {"a": [1, 2, 3]}, {"": 3}),
    ('a{x="1"}', {'a{x="1"}': [1], 'a{x="2"}': [2]}, {"1": 1}),
    ('a{x=~"1|2"}', {'a{x="1"}': [1], 'a{x="22"}': [2]}, {"1": 1}),
    ('a{x!="1"}', {'a{x="1"}': [1], 'a{x="2"}': [2]}, {"2": 2}),
    ("sum(a)", {'a{x="1"}': [1], 'a{x="2"}': [2]}, {"": 3}),
    ("sum by (x) (a)", {'a{x="1",y="1"}': [1], 'a{x="1",y="2"}': [2], 'a{x="2",y="1"}': [4]}, {"1": 3, "2": 4}),
    ("max(a)", {'a{x="1"}': [1], 'a{x="2"}': [2]}, {"": 2}),
    ("increase(a[5s])", {"a": [0, 1, 2, 3, 4, 5, 6, 7]}, {"": 5}),
    ("rate(a[5s])", {"a": [0, 2, 4, 6, 8, 10, 12]}, {"": 2}),
    ("increase(a[5s])", {"a": [5, 6, 0, 1]}, {"": 2}),
    ("increase(a[5s])", {"a": [5]}, {}),
    ("a offset 2s", {"a": [1, 2, 3]}, {"": 1}),
    ("a > 1", {'a{x="1"}': [1], 'a{x="2"}': [2]}, {"2": 2}),
    ("a - b", {'a{x="1"}': [5], 'b{x="1"}': [2], 'a{x="2"}': [9]}, {"1": 3}),
    ("a / b", {"a": [0], "b": [0]}, {"": math.nan}),
    ("(a / b) >= 0 or vector(1)", {"a": [0], "b": [0]}, {"": 1}),
    ("a and on () b > 1", {'a{x="1"}': [5], "b": [2]}, {"1": 5}),
    ("a and on () b > 1", {'a{x="1"}': [5], "b": [1]}, {}),
    ("a or b", {"a": [1], "b": [2]}, {"": 1}),
    ("absent(a == 1)", {"a": [0]}, {"": 1}),
    ("absent(a == 1)", {"a": [1]}, {}),
    ("clamp_max(a, 1)", {"a": [7]}, {"": 1}),
    ("clamp_min(3 * a, 15)", {"a": [2]}, {"": 15}),
    ("time() - a", {"a": [4]}, {"": 6}),
    ("a / (1024^3)", {"a": [1024.0**3]}, {"": 1}),
    (
        "histogram_quantile(0.5, sum by (le) (a))",
        {'a{le="1"}': [0], 'a{le="3"}': [4], 'a{le="+Inf"}': [4]},
        {"": 2},
    ),
]


@pytest.mark.parametrize(
    ("expression", "series", "expected"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_expression_is_what_prometheus_says(expression: str, series: Series, expected: dict[str, float]) -> None:
    assert value(expression, series) == pytest.approx(expected, nan_ok=True)


def test_sample_that_is_old_is_not_the_present_one() -> None:
    storage = Storage()
    storage.add(0.0, parse("a 1"))
    assert Evaluator(storage).vector("a", 60.0) == {}


def test_labels_with_commas_and_quotes_are_read() -> None:
    ((labels, number),) = parse('a{x="1,2",y="\\"} 3"} 4')
    assert (dict(labels), number) == ({NAME: "a", "x": "1,2", "y": '\\"} 3'}, 4.0)


@pytest.mark.parametrize("expression", ["avg(a)", "topk(1, a)", "a * on (x) group_left b", "predict_linear(a[5m], 1)"])
def test_what_is_not_understood_is_refused(expression: str) -> None:
    with pytest.raises(DrillFailedError, match="not evaluated here"):
        value(expression, {"a": [1, 2], "b": [1, 2]})


@pytest.mark.parametrize("name", [*recordings(DRILL), *dict.fromkeys(alert.name for alert in alerts(DRILL))])
def test_every_rule_of_drills_can_be_evaluated(name: str) -> None:
    expressions = {**recordings(DRILL), **{alert.name: alert.expression for alert in alerts(DRILL)}}
    assert isinstance(evaluator({"a": [1.0]}).vector(expressions[name], 10.0), dict)


@pytest.mark.parametrize("drill", drills(), ids=lambda drill: drill.code)
def test_curve_of_every_drill_can_be_evaluated(drill: Drill) -> None:
    assert isinstance(evaluator({"a": [1.0]}).vector(drill.plot, 10.0), dict)
