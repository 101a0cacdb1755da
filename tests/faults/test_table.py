"""The table of faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", (HERE / "README.md").read_text())))


def defined(file: str) -> set[str]:
    path = ROOT / file if file.startswith("tests/") else HERE / file
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_table_names_tests_that_exist(file: str) -> None:
    assert {test for where, test in NAMED if where == file} <= defined(file)


def test_table_names_every_test_of_this_directory() -> None:
    here = {
        (path.name, test) for path in HERE.glob("test_*.py") if path != Path(__file__) for test in defined(path.name)
    }
    assert here <= set(NAMED)
