"""How long an automatic swap waits: long enough to keep within the limit, and not a moment longer."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from oneiric.core.budget import WINDOW, wait_before

# Whole seconds, so that sums are exact.
gaps = st.lists(st.integers(0, 40).map(float), max_size=30)
limits = st.integers(1, 5)


def instants(gaps: list[float]) -> list[float]:
    """Return when swaps began that *gaps* lie between."""
    at, swaps = 0.0, []
    for gap in gaps:
        at += gap
        swaps.append(at)
    return swaps


def kept(gaps: list[float], limit: int) -> list[float]:
    """Return when swaps begin that are asked for after *gaps* and wait as they are told."""
    at = 0.0
    swaps: list[float] = []
    for gap in gaps:
        at += gap
        at += wait_before(swaps, now=at, per_minute=limit)
        swaps.append(at)
    return swaps


@given(limits)
def test_first_swap_does_not_wait(limit: int) -> None:
    assert wait_before([], now=0.0, per_minute=limit) == 0.0


@given(gaps, limits, st.integers(0, 100))
def test_wait_is_between_nothing_and_the_window(gaps: list[float], limit: int, later: int) -> None:
    swaps = instants(gaps)
    now = (swaps[-1] if swaps else 0.0) + later
    assert 0.0 <= wait_before(swaps, now=now, per_minute=limit) <= WINDOW


@given(gaps, limits)
def test_swaps_that_wait_keep_within_the_limit_in_every_window(gaps: list[float], limit: int) -> None:
    swaps = kept(gaps, limit)
    assert all(late - early >= WINDOW for early, late in zip(swaps, swaps[limit:], strict=False))


@given(gaps, limits)
def test_swap_waits_only_when_the_window_is_full(gaps: list[float], limit: int) -> None:
    swaps = instants(gaps)
    now = swaps[-1] if swaps else 0.0
    recent = [at for at in swaps if now - at < WINDOW]
    assert (wait_before(swaps, now=now, per_minute=limit) > 0) == (len(recent) >= limit)


@given(gaps, limits)
def test_swap_that_waited_need_not_wait_again_and_could_not_come_sooner(gaps: list[float], limit: int) -> None:
    swaps = instants(gaps)
    now = swaps[-1] if swaps else 0.0
    wait = wait_before(swaps, now=now, per_minute=limit)
    assume(wait > 0)
    assert wait_before(swaps, now=now + wait, per_minute=limit) == 0.0
    assert wait_before(swaps, now=now + wait - 1, per_minute=limit) == 1.0


@given(gaps, limits)
def test_wait_shrinks_as_time_passes(gaps: list[float], limit: int) -> None:
    swaps = instants(gaps)
    now = swaps[-1] if swaps else 0.0
    waits = [wait_before(swaps, now=now + later, per_minute=limit) for later in range(70)]
    assert all(after == max(0.0, before - 1) for before, after in pairwise(waits))


@given(gaps, limits)
def test_larger_limit_never_waits_longer(gaps: list[float], limit: int) -> None:
    swaps = instants(gaps)
    now = swaps[-1] if swaps else 0.0
    assert wait_before(swaps, now=now, per_minute=limit + 1) <= wait_before(swaps, now=now, per_minute=limit)


@given(gaps, limits)
def test_swaps_older_than_the_window_do_not_matter(gaps: list[float], limit: int) -> None:
    swaps = instants(gaps)
    now = swaps[-1] if swaps else 0.0
    recent = [at for at in swaps if now - at < WINDOW]
    waits = {wait_before(known, now=now, per_minute=limit) for known in (swaps, recent)}
    assert len(waits) == 1
