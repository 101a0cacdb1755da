"""Runbook 1, scenario D: the settings cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor.failures import RESTART
from oneiric.doctor.finding import Finding
from oneiric.doctor.vitals import Vitals
from oneiric.doctor.wording import cut, instant, quoted

_SHOWN: Final = 10
_PLACE: Final = re.compile(r"(.+?):([0-9]+)(?::[0-9]+)?: ")


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield that the settings are invalid."""
    problems = [line.strip() for line in vitals.config_problems if line.strip()]
    if not problems:
        return
    is_live = vitals.process is not None
    files = dict.fromkeys(found[1] for one in problems if (found := _PLACE.match(one)))
    rejected = [one for one in vitals.recent if one.event == "config-rejected"]
    since = f", since {instant(rejected[-1].at)}" if rejected else ""
    state = "the last good settings stay in force; a restart would fail" if is_live else "a daemon would not start"
    left = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    edits = [f"# correct {cut(one)}" for one in problems[:_SHOWN]]
    yaml = [f"""python -c "import sys, yaml; yaml.safe_load(open(sys.argv[1]))" {quoted(file)}""" for file in files]
    yield Finding(
        code="1D",
        priority="P1",
        title=f"the settings are invalid: {plural(len(problems), 'problem')}",
        subject=next(iter(files), vitals.settings),
        evidence=(*map(cut, problems[:_SHOWN]), *left, state + since),
        commands=(
            "oneiric config check",
            *edits,
            *yaml[:_SHOWN],
            "oneiric config check",
            *(() if is_live else (RESTART,)),
        ),
        confirm=(
            "oneiric config check: exit code 0",
            'log: event="config-changed"',
            "PromQL: min(oneiric_config_last_reload_successful) == 1",
        ),
    )


def is_in_bad_file(vitals: Vitals, file: str) -> bool:
    """Say whether *file* is one that cannot be read."""
    return any(problem.strip().startswith(f"{file}:") for problem in vitals.config_problems)
