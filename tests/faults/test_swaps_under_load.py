"""A thousand swaps under a thousand callers; ``make soak`` does ten thousand."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness.load import Outcome, replace_under_load, swap_under_load

SWAPS, CALLERS = 1_000, 1_000


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return asyncio.run(swap_under_load(SWAPS, CALLERS))


def test_no_call_fails_because_of_a_swap(outcome: Outcome) -> None:
    assert outcome.calls > 10 * CALLERS, "nobody called"
    assert outcome.failed == 0


def test_exactly_one_instance_is_open_afterwards(outcome: Outcome) -> None:
    assert (outcome.open, outcome.closed_twice) == (1, 0)


def test_memory_is_flat(outcome: Outcome) -> None:
    assert outcome.growth_bytes < 5 << 20


def test_bare_reference_fails_thousands_of_calls_under_the_same_load() -> None:
    assert asyncio.run(replace_under_load(SWAPS // 20, CALLERS)).failed > 1_000
