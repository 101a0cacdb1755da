"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.cli.figures import combined, number, quantile, ratio, size, span


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3.0, "3"), (1234, "1,234"), (0.25, "0.25"), (1234.5, "1,234"), (999.99, "1,000"), (-0.5, "-0.5")],
)
def test_number_has_thousands_apart_and_no_needless_decimals(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1e-7, "0.1 µs"),
        (0.000012, "12 µs"),
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (86_705, "1 d"),
        (90_061, "1 d 1 h"),
    ],
)
def test_span_is_said_in_the_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_size_is_in_mebibytes() -> None:
    assert size(52_428_800) == "50.0 MiB"


@given(st.integers(1, 10**9))
def test_ratio_is_the_whole_only_when_it_is_all(whole: int) -> None:
    assert ratio(whole, whole) == "100 %"
    assert ratio(whole - 1, whole) != "100 %"


BUCKETS = [(1.0, 0.0), (5.0, 10.0), (10.0, 10.0), (math.inf, 20.0)]


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.25, 3.0), (0.5, 5.0), (0.51, math.inf), (1.0, math.inf)],
    ids=["inside", "edge", "over", "all"],
)
def test_quantile_is_interpolated_within_its_bucket(share: float, value: float) -> None:
    assert quantile(share, BUCKETS) == value


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any), st.floats(0.01, 1.0))
def test_quantile_lies_in_the_bucket_that_holds_its_rank(counts: list[int], share: float) -> None:
    bounds = [*(float(2**n) for n in range(len(counts) - 1)), math.inf]
    cumulative = [float(sum(counts[: n + 1])) for n in range(len(counts))]
    index = next(n for n, count in enumerate(cumulative) if count >= share * cumulative[-1] and counts[n])
    found = quantile(share, list(zip(bounds, cumulative, strict=True)))
    assert (bounds[index - 1] if index else 0.0) <= found <= bounds[index]


def test_combined_histograms_add_their_counts_in_order_of_the_bounds() -> None:
    assert combined([{1.0: 1, math.inf: 2}, {math.inf: 5, 1.0: 3}]) == [(1.0, 4), (math.inf, 7)]
