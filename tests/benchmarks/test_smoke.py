"""``python -m benchmarks`` measures everything it names. Nothing here asserts how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]
EXPECTED = (
    {"resolve", "resolve is flat", "explain", "register, slots", "register, one slot a call"}
    | {"register, all on one slot", "lease", "proxy", "swap, p50", "swap, p99"}
    | {"swap, state store, p50", "swap, state store, p99", "oneiric --help", "oneiric list"}
)


class Run(NamedTuple):
    """A run of the benchmarks: how it ended, and what it wrote."""

    done: subprocess.CompletedProcess[str]
    rows: list[dict[str, Any]]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Run:
    file = tmp_path_factory.mktemp("benchmarks") / "table.json"
    done = run("--quick", "--json", str(file))
    return Run(done, json.loads(file.read_text())["rows"] if file.exists() else [])


def test_quick_run_measures_everything(quick: Run) -> None:
    assert (quick.done.returncode, [row for row in quick.rows if row["error"]]) == (0, []), quick.done.stderr


def test_quick_run_has_every_benchmark(quick: Run) -> None:
    assert {row["name"] for row in quick.rows} >= EXPECTED


def test_every_row_has_figures(quick: Run) -> None:
    assert [row for row in quick.rows if not 0 < row["p10"] <= row["median"]] == []


def test_every_row_with_a_baseline_has_a_ratio(quick: Run) -> None:
    assert [row for row in quick.rows if bool(row["baseline"]) != bool(row["ratio"])] == []


def test_every_command_shows_its_peak_memory(quick: Run) -> None:
    peaks = {row["name"]: row["memory"] for row in quick.rows if "oneiric" in row["name"] or "pass" in row["name"]}
    assert min(peaks.values()) == peaks["python -c pass"] > 2**20


def test_table_has_a_line_for_each_row_of_the_json(quick: Run) -> None:
    _heading, *lines = quick.done.stdout.split("\n\n")[0].splitlines()
    assert [line.partition("  ")[0] for line in lines] == [row["name"] for row in quick.rows]


def test_only_measures_what_it_names() -> None:
    lines = run("--quick", "--only", "explain").stdout.split("\n\n")[0].splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"explain"}


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    done = run("--only", "everything")
    assert done.returncode == 2
    assert all(name in done.stderr for name in BENCHMARKS)
