"""Real drills: one without Prometheus, one that must fail, and the command's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from oneiric.drills import drill
from oneiric.drills.drill import Drill
from oneiric.drills.monitors import watch
from oneiric.drills.run import run
from oneiric.drills.scenarios import drills

BY_CODE = {one.code: one for one in drills()}


def oneiric(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oneiric", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def swapped(subject: Drill, fault: Drill) -> Drill:
    """Return *subject* with the project and the fault of another one; it waits for what that one's alert is."""
    return replace(subject, prepare=fault.prepare, inject=fault.inject, fire_timeout=20.0)


def test_drill_with_the_fault_of_another_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "QUERY_TIMEOUT", 5.0)  # what it waits for will not come
    report = run(swapped(BY_CODE["2A"], BY_CODE["2B"]), watch(real=False))
    assert "swap-rollback" in report.failed or "the doctor says 2B" in report.failed or "rollback" in report.failed


def test_doctor_who_is_wrong_fails_the_drill() -> None:
    report = run(replace(BY_CODE["1D"], verdict="1C"), watch(real=False))
    assert "the doctor says 1D" in report.failed


def test_drill_without_prometheus_says_so_and_passes(tmp_path: Path) -> None:
    page = tmp_path / "drill.html"
    done = oneiric("drill", "run", "1d", "--prometheus", "off", "--json", "--html", str(page), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(done.stdout)["drills"]
    assert (report["passed"], "evaluated by the drill" in report["monitor"]) == (True, True)
    assert "1 of 1 drills passed" in page.read_text()


def test_drill_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    oneiric("drill", "run", "1D", "--prometheus", "off", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_drill_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = oneiric("drill", "run", "9Z", cwd=tmp_path)
    assert (done.returncode, "oneiric drill list" in done.stderr) == (2, True)


def test_list_names_every_drill(tmp_path: Path) -> None:
    listed = json.loads(oneiric("drill", "list", "--json", cwd=tmp_path).stdout)["drills"]
    assert [one["id"] for one in listed] == sorted(BY_CODE)
