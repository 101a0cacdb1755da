"""A daemon killed at random instants; ``make soak`` does it a thousand times."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.hazards import hazardous
from tests.harness.kills import Killing, Tally

KILLS = (8, 7)


def test_daemon_killed_at_random_instants_starts_with_what_it_acknowledged(tmp_path: Path) -> None:
    def kill(number: int) -> Tally:
        return Killing(hazardous(tmp_path / f"p{number}"), seed=number).run(KILLS[number])

    with ThreadPoolExecutor(2) as at_once:
        tallies = list(at_once.map(kill, range(2)))
    assert [tally.wrong for tally in tallies] == [[], []]
    assert all(tally.acknowledged and tally.history_rows for tally in tallies), "nothing was asked of the daemons"
