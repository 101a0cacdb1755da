"""The page about adapters shows a provider that works: its files are written, its commands typed, its tests run."""

from __future__ import annotations

from pathlib import Path

import pytest

import oneiric.testing
from oneiric.core.config import LifecycleSettings
from tests.harness.markdown import read
from tests.harness.pages import answer, require_tests_pass, require_typed, typed, unused, write_files

PAGE = read(Path(__file__).parents[2] / "docs" / "how-to" / "write-an-adapter.md")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with every file of the page."""
    return write_files(PAGE, tmp_path)


def test_every_block_names_a_file_or_is_typed() -> None:
    assert unused(PAGE) == []


def test_commands_print_what_is_shown(place: Path) -> None:
    assert [answer(command, place).returncode for command in typed(PAGE)] == [0, 0, 0, 0]


@pytest.mark.parametrize("file", [block.use for block in PAGE.blocks if block.use.startswith("test_")])
def test_tests_of_the_page_pass(place: Path, file: str) -> None:
    require_tests_pass(place, file)


def test_provider_is_typed(place: Path) -> None:
    require_typed(place, "rates.py", "checks.py")


def test_bounds_are_those_of_the_settings() -> None:
    text = " ".join(PAGE.prose.split())
    defaults = LifecycleSettings()
    said = {
        "activation_timeout": ", {:g} s |",
        "health_timeout": ", {:g} s |",
        "hook_timeout": ", {:g} s |",
        "cleanup_timeout": ", {:g} s |",
        "drain_timeout": ", {:g} s |",
        "health_interval": " ({:g} s)",
        "failure_threshold": " failures in a row ({:g})",
    }
    wrong = [
        name for name, form in said.items() if f"`lifecycle.{name}`{form.format(getattr(defaults, name))}" not in text
    ]
    assert wrong == []


def test_everything_for_tests_is_listed() -> None:
    public = {
        name
        for name, value in vars(oneiric.testing).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == "oneiric.testing"
    }
    assert {name for name in public if f"`{name}" not in PAGE.prose} == set()
