"""What the command line costs as a whole process, from its start to its end; beside other tools installed here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.measure import FEWEST_ROUNDS, Budget, Claim, Row, Sample, measure
from benchmarks.processes import DAEMON, Launcher, launcher, project, serving

PASS: Final = "python -c pass"
ONEIRIC: Final = (sys.executable, "-m", "oneiric.cli")
APART: Final = {
    PASS: (sys.executable, "-c", "pass"),
    "oneiric --help": (*ONEIRIC, "--help"),
    "oneiric list": (*ONEIRIC, "list"),
    "oneiric status": (*ONEIRIC, "status"),
    "oneiric explain": (*ONEIRIC, "explain", "part-1", "--domain", "adapter"),
}
"""Without a daemon: what is asked is answered from the settings and plugins on disk."""
SERVED: Final = {f"{name}, daemon up": command for name, command in list(APART.items())[2:]}
TOOLS: Final = ("uvicorn", "pip", "pytest", "mypy", "sphinx")
NATIVE: Final = ("ruff",)
SLOTS: Final = 10
TIMES: Final = 6
PEAK_BYTES: Final = 30 * 2**20


async def commands(budget: Budget) -> list[Row]:
    """``oneiric`` with and without a daemon, and other tools, against the interpreter doing nothing."""
    contenders: dict[str, Sample] = {}
    started: dict[str, tuple[Launcher, tuple[str, ...]]] = {}
    broken: list[Row] = []
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as text, ExitStack() as stack:
        apart, served = (project(Path(text, name), SLOTS) for name in ("apart", "served"))
        stack.enter_context(serving(served, *DAEMON))
        for directory, named in ((apart, {**APART, **others(budget)}), (served, SERVED)):
            starts = stack.enter_context(launcher(directory))
            for name, command in named.items():
                if error := starts.error(*command):
                    broken.append(Row(name, 1, error=error))
                else:
                    contenders[name] = starts.process(*command)
                    started[name] = starts, command
        rows = await measure(contenders, [_claim(name) for name in sorted(contenders, key=_place)], budget)
        peaks = {name: starts.peak(*command) for name, (starts, command) in started.items()}
    return [*(replace(row, memory=peaks[row.name], memory_target=row.target and PEAK_BYTES) for row in rows), *broken]


def others(budget: Budget) -> Mapping[str, tuple[str, ...]]:
    """Return the ``--help`` of tools that are installed beside this one, of one where there is no time for more."""
    tools = TOOLS if budget.rounds >= FEWEST_ROUNDS else TOOLS[:1]
    programs = Path(sys.executable).parent
    modules = {f"{name} --help": (sys.executable, "-m", name, "--help") for name in tools if find_spec(name)}
    native = {
        f"{name} --help (native)": (str(programs / name), "--help") for name in NATIVE if (programs / name).exists()
    }
    return modules | native


def _claim(name: str) -> Claim:
    baseline = "" if name == PASS else PASS
    return Claim(name, 1, name, baseline, target=TIMES if name.startswith("oneiric") else None)


def _place(name: str) -> int:
    known = [*APART, *SERVED]
    return known.index(name) if name in known else len(known)
