"""The page about plugins, done from top to bottom: built, installed, listed, competing, broken, left out, tested."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import pytest

import oneiric
from oneiric.core.domain import DOMAINS
from oneiric.plugins.discovery import MOST_CANDIDATES
from tests.harness.markdown import read
from tests.harness.pages import answer, commands, require_tests_pass, unused, write

ROOT = Path(__file__).parents[2]
PAGE = read(ROOT / "docs" / "how-to" / "write-a-plugin.md")
OFFLINE = {
    "pip wheel": "pip --isolated wheel --no-index --no-build-isolation",
    "pip install": "pip --isolated install --no-index --no-deps --target site",
    "0.1.0": oneiric.__version__,
}
ENVIRON = {"PYTHONPATH": "site", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
LOCAL = "pip install --quiet ./"


def install(project: Path, site: Path) -> None:
    """Put into *site* what matters of an installed *project*; pip, which the page tries on the first, is dear."""
    said = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = site / f"{said['name'].replace('-', '_')}-{said['version']}.dist-info"
    info.mkdir(parents=True)
    lines = [
        [f"[{group}]", *(f"{n} = {value}" for n, value in of.items())] for group, of in said["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(f"{line}\n" for section in lines for line in section))
    for module in project.glob("*.py"):
        shutil.copy(module, site)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the page was followed to its end."""
    place = tmp_path_factory.mktemp("plugins")
    shutil.copytree(ROOT / "examples" / "plugin", place / "examples" / "plugin")
    for block in PAGE.blocks:
        if block.language != "console":
            write(block, place)
            continue
        for command in commands(block):
            if command.command.startswith(LOCAL):
                install(place / command.command.removeprefix(LOCAL), place / "site")
            else:
                answer(command, place, environ=ENVIRON, names=OFFLINE)
    return place


def test_every_block_names_a_file_or_is_typed() -> None:
    assert unused(PAGE) == []


def test_commands_print_what_is_shown(followed: Path) -> None:
    assert (followed / "dist" / "oneiric_example_plugin-1.2.0-py3-none-any.whl").exists()


def test_tests_of_the_page_pass(followed: Path) -> None:
    (followed / "settings" / "app.yml").unlink(missing_ok=True)
    require_tests_pass(followed, "test_plugin.py", ENVIRON)


def test_every_group_is_listed() -> None:
    rows = [f"| `{d.group}` | `{d.name}/KEY` | `settings/{d.settings_file}` |" for d in DOMAINS.values()]
    assert [row for row in rows if row not in PAGE.prose] == []


def test_limit_is_that_of_the_discovery() -> None:
    assert f"more than {MOST_CANDIDATES:,} candidates" in " ".join(PAGE.prose.split())
