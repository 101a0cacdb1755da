"""When an instance is probed next."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.pulse import DOUBLINGS, Pulse

INTERVAL = 30.0
THRESHOLD = 3
answers = st.lists(st.booleans(), max_size=30)
thresholds = st.integers(1, 10)


def follow(healthy: list[bool], threshold: int = THRESHOLD) -> list[tuple[Pulse, float]]:
    """Return the pulse after each probe, each taken when it was due, and the wait that follows."""
    pulse, now, seen = Pulse(), 0.0, []
    for answer in healthy:
        pulse = pulse.after(healthy=answer, now=now, interval=INTERVAL, threshold=threshold)
        seen.append((pulse, pulse.next_at - now))
        now = pulse.next_at
    return seen


@pytest.mark.parametrize(
    ("failures", "wait"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 16), (100, 16)]
)
def test_wait_is_doubled_from_the_threshold_on_and_bounded(failures: int, wait: int) -> None:
    pulse = Pulse(failures - 1, 0.0)
    after = pulse.after(healthy=not failures, now=100.0, interval=INTERVAL, threshold=THRESHOLD)
    assert after == Pulse(failures, 100.0 + wait * INTERVAL)


@given(answers, thresholds)
def test_failures_are_counted_in_a_row(healthy: list[bool], threshold: int) -> None:
    counted = [pulse.failures for pulse, _ in follow(healthy, threshold)]
    in_a_row = 0
    for answer, count in zip(healthy, counted, strict=True):
        in_a_row = 0 if answer else in_a_row + 1
        assert count == in_a_row


@given(answers, thresholds)
def test_next_probe_is_never_sooner_than_the_interval_nor_later_than_its_bound(
    healthy: list[bool], threshold: int
) -> None:
    assert all(INTERVAL <= wait <= INTERVAL * 2**DOUBLINGS for _, wait in follow(healthy, threshold))


@given(st.integers(1, 30), thresholds)
def test_waits_never_shrink_while_it_fails(failures: int, threshold: int) -> None:
    waits = [wait for _, wait in follow([False] * failures, threshold)]
    assert all(early <= late for early, late in pairwise(waits))


@given(answers, thresholds)
def test_one_healthy_answer_makes_good_for_all_failures(healthy: list[bool], threshold: int) -> None:
    (*_, (pulse, wait)) = follow([*healthy, True], threshold)
    assert (pulse.failures, wait) == (0, INTERVAL)


@given(thresholds)
def test_quarantine_is_reached_as_fast_as_probes_allow(threshold: int) -> None:
    waits = [wait for _, wait in follow([False] * threshold, threshold)]
    assert waits == [INTERVAL] * threshold
