"""A runtime that has a directory for its settings and one for its state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oneiric import Settings
from oneiric.config.loader import load
from oneiric.runtime.state import StateStore
from tests.harness.slots import BARE


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    """A state directory that holds nothing."""
    return StateStore(tmp_path / "state")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a settings directory; plugins are off."""

    def write(**files: str) -> Path:
        directory = tmp_path / "settings"
        directory.mkdir(exist_ok=True)
        for name, text in {"app": BARE, **files}.items():
            (directory / f"{name}.yml").write_text(text)
        return directory

    return write


@pytest.fixture
def adapters(write: Callable[..., Path]) -> Callable[[str], Settings]:
    """Read settings with this adapters.yml."""
    return lambda text: load(write(adapters=text), environ={})
