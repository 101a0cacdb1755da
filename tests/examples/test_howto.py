"""``docs/how-to/publish-a-manifest.md``: every line of it, in the order in which it stands there."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from examples.publisher.press import build_wheel
from oneiric.remote.signing import generate_keys, write_keys
from tests.harness.daemon import oneiric

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "publish-a-manifest.md").read_text()
LINES = re.findall(r"^\$ (.*?)(?: +#.*)?$", PAGE, re.MULTILINE)
WHEEL = {"acme_cache/__init__.py": "", "acme_cache/redis.py": "class RedisCache:\n    pass\n"}


def yaml_block(heading: str) -> str:
    found = re.search(rf"```yaml\n# {re.escape(heading)}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The directory that the page is about: the wheel, a manifest that names it, settings, and two people's keys."""
    wheel = build_wheel(tmp_path, "acme-cache", "2.1.0", WHEEL).read_bytes()
    text = re.sub(r"sha256: \w+", f"sha256: {hashlib.sha256(wheel).hexdigest()}", yaml_block("manifest.yaml"))
    (tmp_path / "manifest.yaml").write_text(re.sub(r"length: \d+", f"length: {len(wheel)}", text))
    (tmp_path / "settings").mkdir()
    (tmp_path / "www").mkdir()
    (tmp_path / "settings" / "app.yml").write_text(yaml_block("settings/app.yml"))
    for name in ("alice", "bob"):
        write_keys(generate_keys(), tmp_path / f"{name}.pem", tmp_path / f"{name}.pub", force=False)
    return tmp_path


def type_all(directory: Path, lines: list[str]) -> None:
    for line in lines:
        program, *arguments = shlex.split(line)
        done = oneiric(directory, *arguments) if program == "oneiric" else in_a_shell(directory, line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def in_a_shell(directory: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], cwd=directory, capture_output=True, text=True, timeout=20, check=False)


def published(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
    return document


def test_every_line_of_the_page_does_what_it_says(release: Path) -> None:
    type_all(release, LINES)
    assert len(LINES) == 9
    assert len(published(release)["signatures"]) == 2


def test_second_release_has_a_higher_version_and_is_accepted_after_the_first(release: Path) -> None:
    keygen, sign, *_ = LINES
    sync = "oneiric remote-sync --manifest ./manifest.json"
    type_all(release, [keygen, sign, sync])
    first = published(release)["manifest_version"]
    type_all(release, [sign, sync])
    assert (first, published(release)["manifest_version"]) == (1, 2)
