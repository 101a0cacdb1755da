"""How benchmarks compare: round by round, in random order, and what counts as met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks import table
from benchmarks.measure import FEWEST_ROUNDS, QUICK, Budget, Claim, Row, Sample, footprint, measure, quantile, timed

NO_TIME = Budget(seconds=0, sample_seconds=0)


def series(*rounds: Sequence[float]) -> Sample:
    """A contender that takes these samples, one a round."""
    left = iter(rounds)

    async def sample() -> Sequence[float]:
        return next(left)

    return sample


def once(*costs: float) -> Sample:
    return series(*([cost] for cost in costs))


def row(**fields: Any) -> Row:
    return Row("some", 1, **fields)


@pytest.mark.anyio
async def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    contenders = {"ours": once(9, 9, 1, 1, 1), "base": once(3, 3, 3, 1, 1)}
    (measured,) = await measure(contenders, [Claim("some", 1, "ours", "base")], NO_TIME)
    assert measured.ratio == 1  # the ratio of the medians would be a third


@pytest.mark.anyio
async def test_row_shows_median_and_p10_over_the_rounds() -> None:
    (measured,) = await measure({"ours": once(5, 1, 4, 2, 3)}, [Claim("some", 1, "ours")], NO_TIME)
    assert (measured.median, measured.p10) == (3, 1)


@pytest.mark.anyio
async def test_claim_about_p99_takes_the_slow_ones_of_each_sample() -> None:
    sample = [1.0] * 98 + [7.0] * 2
    contenders = {"ours": series(*[sample] * FEWEST_ROUNDS)}
    (measured,) = await measure(contenders, [Claim("some", 1, "ours", quantile=0.99)], NO_TIME)
    assert measured.median == 7


@pytest.mark.anyio
async def test_order_is_shuffled_anew_each_round() -> None:
    taken: list[str] = []

    def contender(name: str) -> Sample:
        async def sample() -> Sequence[float]:
            taken.append(name)
            return [1.0]

        return sample

    await measure({name: contender(name) for name in "ab"}, [], NO_TIME, shuffle=list.reverse)
    assert "".join(taken) == "ba" + "ab" + "ba" + "ab" + "ba"


@pytest.mark.anyio
async def test_statement_runs_for_every_item() -> None:
    seen: set[int] = set()
    await timed("seen.add(item)", NO_TIME, items=(1, 2, 3), seen=seen)
    assert seen == {1, 2, 3}


@pytest.mark.anyio
async def test_statement_may_await() -> None:
    entered: set[int] = set()

    async def enter(item: int) -> None:
        entered.add(item)

    await timed("await enter(item)", NO_TIME, items=(1, 2, 3), enter=enter)
    assert entered == {1, 2, 3}


@pytest.mark.anyio
async def test_interrupted_sample_is_never_negative() -> None:
    sample = await timed("pass", NO_TIME, items=(1,))
    assert [cost >= 1e-9 for _ in range(50) for cost in await sample()] == [True] * 50


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({"ratio": 4.0, "target": 4}, True),
        ({"ratio": 4.1, "target": 4}, False),
        ({"ratio": 4.0, "target": 4, "memory": 31, "memory_target": 30}, False),
        ({"ratio": 4.0, "target": 4, "memory": 30, "memory_target": 30}, True),
        ({"ratio": 4.0, "memory": 30}, None),
        ({"median": 0.2, "median_target": 0.1}, False),
        ({"median": 0.1, "median_target": 0.1, "ratio": 9}, True),
        ({"target": 4, "error": "exit 1"}, None),
    ],
)
def test_row_is_met_when_all_its_targets_are(fields: dict[str, Any], met: bool | None) -> None:
    assert row(**fields).met is met


@pytest.mark.parametrize(("fraction", "value"), [(0, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.9, 9), (0.99, 10), (1, 10)])
def test_quantile_is_the_value_that_so_many_do_not_exceed(fraction: float, value: float) -> None:
    assert quantile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], fraction) == value


def test_footprint_counts_what_is_kept_and_not_what_is_dropped() -> None:
    def make() -> bytearray:
        bytearray(5_000_000)
        return bytearray(1_000_000)

    assert 1_000_000 <= footprint(make) < 1_100_000


def test_quick_budget_cuts_sizes_and_keeps_each_once() -> None:
    assert QUICK.sizes(10, 1_000, 100_000) == (10, 20)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45.23e-9, "45.2 ns"), (999.7e-9, "1.00 us"), (123.4e-6, "123 us"), (5.678e-3, "5.68 ms"), (12.34, "12.3 s")],
)
def test_duration_has_three_digits_and_a_fitting_unit(seconds: float, text: str) -> None:
    assert table.duration(seconds) == text


def test_row_that_could_not_be_measured_says_why() -> None:
    assert "not run" in (text := table.as_text([row(error="exit 1: no such thing")]))
    assert "no such thing" in text


def test_missed_target_is_marked() -> None:
    assert "<= 4    MISSED" in table.as_text([row(ratio=5.0, baseline="dict", target=4)])
