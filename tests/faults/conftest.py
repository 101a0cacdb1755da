"""Faults from outside are caused to real daemons, each in a directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.hazards import hazardous


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project whose providers go wrong on demand."""
    return hazardous(tmp_path / "p")
