"""A daemon killed a thousand times, or as often as ``ONEIRIC_SOAK_KILLS`` says."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.hazards import hazardous
from tests.harness.kills import Killing, Tally

pytestmark = pytest.mark.soak

AT_ONCE = 2
KILLS = int(os.environ.get("ONEIRIC_SOAK_KILLS", "1000"))


def test_daemon_killed_a_thousand_times_starts_each_time_with_what_it_acknowledged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(number: int) -> Tally:
        share = KILLS // AT_ONCE + (number < KILLS % AT_ONCE)
        return Killing(hazardous(tmp_path / f"p{number}"), seed=number).run(share)

    with ThreadPoolExecutor(AT_ONCE) as at_once:
        tallies = list(at_once.map(kill, range(AT_ONCE)))
    with capsys.disabled():
        print("", *tallies, sep="\n")
    assert [tally.wrong for tally in tallies] == [[]] * AT_ONCE
    assert sum(tally.kills.total() for tally in tallies) == KILLS
