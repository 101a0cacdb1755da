"""Ten thousand swaps under a thousand callers."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness.load import replace_under_load, swap_under_load

pytestmark = pytest.mark.soak


def test_ten_thousand_swaps_under_a_thousand_callers_fail_no_call(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = asyncio.run(swap_under_load(10_000, 1_000))
    bare = asyncio.run(replace_under_load(100, 1_000))
    with capsys.disabled():
        print(f"\nleases:         {outcome}\nbare reference: {bare}")
    assert (outcome.failed, outcome.open, outcome.closed_twice) == (0, 1, 0)
    assert outcome.growth_bytes < 5 << 20
    assert bare.failed > 1_000
