"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oneiric.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_readme_example_prints_what_is_shown_under_it(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", block("python")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (INSTANT.sub("NOW", ran.stdout), ran.stderr) == (INSTANT.sub("NOW", block("text")), "")


def test_readme_names_commands_that_exist() -> None:
    named = set(re.findall(r"(?:/|`)oneiric ([a-z][a-z-]*)", README))
    assert named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("document", ["README.md", "docs/ARCHITECTURE.md", "docs/DEPENDENCIES.md"])
def test_document_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_dependencies_page_lists_every_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["dependencies"] + [
        one for group in ("test", "check", "dev") for one in project["dependency-groups"][group] if isinstance(one, str)
    ]
    page = (ROOT / "docs" / "DEPENDENCIES.md").read_text()
    names = {re.split(r"[<>=\[ ]", one)[0] for one in needed}
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", page)} == set()
