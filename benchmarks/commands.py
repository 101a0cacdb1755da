"""What the command line costs as a whole process, from its start to its end, with no daemon there to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.measure import Budget, Claim, Row, Sample, measure

PASS: Final = "python -c pass"
COMMANDS: Final = {
    PASS: ("-c", "pass"),
    "oneiric --help": ("-m", "oneiric.cli", "--help"),
    "oneiric list": ("-m", "oneiric.cli", "list"),
}
TIMES: Final = 6
PEAK_BYTES: Final = 30 * 2**20
DEADLINE: Final = 60.0


async def commands(budget: Budget) -> list[Row]:
    """``oneiric`` against the interpreter doing nothing."""
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as directory:
        broken = {name: error for name in COMMANDS if (error := _error(name, directory))}
        peaks: dict[str, list[int]] = {name: [] for name in COMMANDS}
        with _launcher(directory) as launcher:
            contenders = {name: _process(launcher, name, peaks[name]) for name in COMMANDS if name not in broken}
            claims = [
                Claim(name, 1, name, "" if name == PASS else PASS, target=None if name == PASS else TIMES)
                for name in contenders
            ]
            rows = await measure(contenders, claims, budget)
    return [
        *(replace(row, memory=median(peaks[row.name]), memory_target=row.target and PEAK_BYTES) for row in rows),
        *(Row(name, 1, error=error) for name, error in broken.items()),
    ]


def _error(name: str, directory: str) -> str:
    """Run the command once, which also compiles what it imports; return "" or why it cannot be measured."""
    command = [sys.executable, *COMMANDS[name]]
    done = subprocess.run(
        command,
        cwd=directory,
        env=_environment(directory),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    said = done.stderr.strip().splitlines() or ["no message"]
    return f"exit {done.returncode}: {said[-1]}" if done.returncode else ""


@contextmanager
def _launcher(directory: str) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("launch.py")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(script)],
        cwd=directory,
        env=_environment(directory),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as launcher:
        yield launcher


def _environment(directory: str) -> dict[str, str]:
    """Return our environment without what configures Oneiric, and with compiled modules, as an installation has."""
    unwanted = ("ONEIRIC_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return kept | {"PYTHONPYCACHEPREFIX": str(Path(directory, "compiled"))}


def _process(launcher: subprocess.Popen[str], name: str, peaks: list[int]) -> Sample:
    orders, answers = launcher.stdin, launcher.stdout
    assert orders is not None
    assert answers is not None

    async def sample() -> Sequence[float]:
        orders.write("\t".join([sys.executable, *COMMANDS[name]]) + "\n")
        orders.flush()
        seconds, peak, status = answers.readline().split()
        if status != "0":
            raise AssertionError(f"{name} ended with {status}")
        peaks.append(int(peak))
        return [float(seconds)]

    return sample
