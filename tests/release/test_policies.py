"""CONTRIBUTING.md and SECURITY.md speak of what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.release.changelog import KINDS
from tests.harness.markdown import read

ROOT = Path(__file__).parents[2]
CONTRIBUTING, SECURITY = read(ROOT / "CONTRIBUTING.md"), read(ROOT / "SECURITY.md")


def test_contributing_has_every_make_target() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    table = CONTRIBUTING.path.read_text().partition("| `make` | does |")[2].partition("\n\n")[0]
    listed = {
        name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1] if row else "")
    }
    assert listed == set(phony[1].split())


def test_contributing_has_every_kind_of_fragment() -> None:
    assert set(KINDS) <= set(CONTRIBUTING.spans)


@pytest.mark.parametrize("page", [CONTRIBUTING, SECURITY], ids=lambda page: page.path.stem)
def test_page_names_paths_that_exist(page) -> None:
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"dist"}
    named = [span for span in page.spans if span.partition("/")[0] in tops and "NAME" not in span and "/" in span]
    assert named
    assert [span for span in named if not (ROOT / span).exists()] == []


def test_security_names_settings_that_exist() -> None:
    from msgspec import structs

    from oneiric.core.config import RemoteSettings

    fields = {field.name for field in structs.fields(RemoteSettings)}
    named = set(re.findall(r"\bremote\.(\w+)", " ".join(SECURITY.spans)))
    assert {"require_signature", "signature_threshold"} <= named
    assert named <= fields
