"""The table of imports: what a program pays before its first line, as a whole process with compiled modules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measure import Budget, Claim, Row, Sample, measure
from benchmarks.peers.crew import missing
from benchmarks.peers.environments import REQUIREMENTS, Environment, environment
from benchmarks.peers.workers import WorkerError, variables, worker

PASS: Final = "python -c pass"
LAUNCHER: Final = Path(__file__).parents[1] / "launch.py"


@dataclass(frozen=True)
class Program:
    """What is started, and what its name and version are."""

    environment: Environment
    code: str
    version: str

    @property
    def name(self) -> str:
        """What the table calls it."""
        return PASS if self.code == "pass" else self.environment.shown


async def starting(budget: Budget) -> list[Row]:
    """Import what a program needs to begin, against doing nothing; time and peak memory."""
    programs: list[Program] = []
    rows: list[Row] = []
    for name in REQUIREMENTS:
        place = environment(name)
        try:
            with worker(place) as found:
                about = found.ask(do="about")
        except WorkerError as error:
            rows.append(missing("import", place, 1, error))
        else:
            programs.append(Program(place, about["import"], about["version"]))
    peaks: dict[str, list[int]] = {program.name: [] for program in programs}
    with ExitStack() as stack:
        samples = {program.name: _process(stack, program, peaks[program.name]) for program in programs}
        claims = [Claim(f"import: {name}", 1, name, "" if name == PASS else PASS) for name in samples]
        measured = await measure(samples, claims, budget)
    return [
        *(
            replace(row, memory=median(peaks[program.name]), note=f"{program.version}: {program.code}")
            for row, program in zip(measured, programs, strict=True)
        ),
        *rows,
    ]


def _process(stack: ExitStack, program: Program, peaks: list[int]) -> Sample:
    """Return what starts *program* once, from a process that is small, as ``benchmarks/launch.py`` explains."""
    launcher = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-I", "-S", LAUNCHER],
            cwd="/",
            env=variables(program.environment.path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    orders, answers = launcher.stdin, launcher.stdout
    assert orders is not None
    assert answers is not None

    async def sample() -> Sequence[float]:
        orders.write("\t".join([str(program.environment.python), "-P", "-c", program.code]) + "\n")
        orders.flush()
        seconds, peak, status = answers.readline().split()
        if status != "0":
            raise AssertionError(f"{program.name} ended with {status}")
        peaks.append(int(peak))
        return [float(seconds)]

    return sample
