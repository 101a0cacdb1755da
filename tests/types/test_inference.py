"""mypy and pyright infer what fills a slot from the slot, and refuse a factory that does not fit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
ROOT = Path(__file__).parents[2]


def run(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


def by_mypy(file: Path, cache: Path) -> dict[int, str]:
    """Return what mypy says, by line."""
    out = run("mypy", "--strict", "--no-pretty", "--no-error-summary", "--cache-dir", str(cache), str(file))
    found = re.findall(rf"{re.escape(file.name)}:(\d+): error: (.*)", out)
    assert bool(found) == bool(out.strip()), out
    return {int(line): text for line, text in found}


def by_pyright(file: Path, cache: Path) -> dict[int, str]:
    """Return what pyright says, by line."""
    out = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(file)))
    assert out["summary"]["filesAnalyzed"] == 1, out
    return {
        d["range"]["start"]["line"] + 1: d["message"] for d in out["generalDiagnostics"] if d["severity"] == "error"
    }


CHECKERS = pytest.mark.parametrize("check", [by_mypy, by_pyright])


@CHECKERS
def test_checker_infers_the_protocol_from_the_slot(
    check: Callable[[Path, Path], dict[int, str]], tmp_path: Path
) -> None:
    assert check(CASES / "accepted.py", tmp_path) == {}


@CHECKERS
def test_checker_refuses_what_does_not_fit_its_slot(
    check: Callable[[Path, Path], dict[int, str]], tmp_path: Path
) -> None:
    file = CASES / "refused.py"
    marked = [n for n, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# refused")]
    assert sorted(check(file, tmp_path)) == marked
