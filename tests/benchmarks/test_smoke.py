"""``python -m benchmarks`` measures everything it names. Nothing here asserts how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.__main__ import BENCHMARKS, FULL_ONLY
from benchmarks.measure import Row
from benchmarks.record import Run as Kept
from benchmarks.record import read, write

ROOT = Path(__file__).parents[2]
EXPECTED = (
    {"resolve", "resolve is flat", "resolve among rivals", "rank anew", "explain", "register, slots", "lease", "proxy"}
    | {
        "register, one slot a call",
        "register, all on one slot",
        "replace a source, one changed",
        "swap, p50",
        "swap, p99",
    }
    | {"swap, state store, p50", "swap, state store, p99", "verify and register, YAML", "unchanged refresh"}
    | {"import an artifact, cold", "import an artifact, warm", "find plugins", "oneiric plugins", "oneiric --help"}
    | {"oneiric list", "oneiric status, daemon up", "uvicorn --help", "daemon, start to ready", "daemon, each slot"}
    | {"control request, one client", "control request, 10 clients", "scrape", "daemon, idle"}
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
    document = json.loads(file.read_text()) if file.exists() else {"benchmarks": {}}
    return Run(done, [row for kept in document["benchmarks"].values() for row in kept["rows"]])


def test_quick_run_measures_everything(quick: Run) -> None:
    assert (quick.done.returncode, [row for row in quick.rows if row["error"]]) == (0, []), quick.done.stderr


def test_quick_run_has_every_benchmark(quick: Run) -> None:
    assert {row["name"] for row in quick.rows} >= EXPECTED


def test_every_row_has_figures(quick: Run) -> None:
    assert [row for row in quick.rows if not 0 < row["p10"] <= row["median"]] == []


def test_every_row_with_a_baseline_has_a_ratio(quick: Run) -> None:
    assert [row for row in quick.rows if bool(row["baseline"]) != bool(row["ratio"])] == []


def test_every_command_shows_its_peak_memory(quick: Run) -> None:
    peaks = {row["name"]: row["memory"] for row in quick.rows if row["name"].startswith(("oneiric", "python -c pass"))}
    assert min(peaks.values()) == peaks["python -c pass"] > 2**20


def test_table_has_a_line_for_each_row_of_the_json(quick: Run) -> None:
    _heading, *lines = quick.done.stdout.split("\n\n")[0].splitlines()
    assert [line.partition("  ")[0] for line in lines] == [row["name"] for row in quick.rows]


def test_only_measures_what_it_names() -> None:
    lines = run("--quick", "--only", "explain").stdout.split("\n\n")[0].splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"explain"}


def test_merge_renews_what_is_run_and_keeps_the_rest(tmp_path: Path) -> None:
    file, old = tmp_path / "kept.json", Kept((Row("old", 1),), "full", {"processor": "another"})
    write(file, {"explain": old, "swap": old})
    assert run("--quick", "--only", "explain", "--merge", str(file)).returncode == 0
    kept = read(file)
    assert kept["swap"] == old
    assert (kept["explain"].budget, {row.name for row in kept["explain"].rows}) == ("quick", {"explain"})
    assert kept["explain"].environment.keys() >= {"processor", "Python", "system", "packages"}


def test_what_takes_long_is_left_to_a_full_run(quick: Run) -> None:
    begun = {line.split()[1] for line in quick.done.stderr.splitlines() if line.endswith(" s")}
    assert begun == BENCHMARKS.keys() - FULL_ONLY


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    done = run("--only", "everything")
    assert done.returncode == 2
    assert all(name in done.stderr for name in BENCHMARKS)
