"""Fragments become the section of a version; a changelog that says otherwise than the version is noticed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from oneiric import __version__
from scripts.release.changelog import KINDS, fragments, not_yet_released, sections, write
from scripts.release.project import Project, ReleaseError

ROOT = Path(__file__).parents[2]
HEAD = "# Changelog\n\nWhat is new.\n"
DAY = date(2026, 11, 26)


def project(directory: Path, *, version: str = "0.2.0", changelog: str = HEAD, **fragments: str) -> Project:
    """Return a project whose fragments are given as ``name_kind="text"``."""
    (directory / "pyproject.toml").write_text(f'[project]\nname = "oneiric"\nversion = "{version}"\n')
    (directory / "CHANGELOG.md").write_text(changelog)
    (directory / "changelog.d").mkdir()
    for name, text in fragments.items():
        (directory / "changelog.d" / f"{name.replace('_', '.')}.md").write_text(text)
    return Project(directory)


def released(*versions: str) -> str:
    return HEAD + "".join(f"\n## {version} - 2026-11-01\n\n### Added\n\n- One.\n" for version in versions)


def test_version_is_the_same_in_the_package_and_in_the_project() -> None:
    assert Project(ROOT).version == __version__


def test_changelog_of_this_tree_is_ready_or_says_what_it_lacks() -> None:
    version = Project(ROOT).version
    assert all(version in reason for reason in not_yet_released(Project(ROOT)))


def test_written_section_stands_above_the_older_ones(tmp_path: Path) -> None:
    one = project(
        tmp_path, changelog=released("0.1.0"), b_fixed="Two lines\nof it.\n", a_added="One.\n", c_added="Two."
    )
    write(one, DAY)
    assert (tmp_path / "CHANGELOG.md").read_text() == (
        HEAD
        + "\n## 0.2.0 - 2026-11-26\n\n### Added\n\n- One.\n- Two.\n\n### Fixed\n\n- Two lines\n  of it.\n"
        + "\n## 0.1.0 - 2026-11-01\n\n### Added\n\n- One.\n"
    )


def test_written_fragments_are_gone(tmp_path: Path) -> None:
    write(project(tmp_path, a_added="One.\n"), DAY)
    assert list((tmp_path / "changelog.d").iterdir()) == []


def test_written_version_is_a_release(tmp_path: Path) -> None:
    one = project(tmp_path, a_added="One.\n")
    write(one, DAY)
    assert not_yet_released(one) == []


def test_section_that_is_there_is_not_written_twice(tmp_path: Path) -> None:
    one = project(tmp_path, changelog=released("0.2.0"), a_added="One.\n")
    with pytest.raises(ReleaseError):
        write(one, DAY)
    assert (tmp_path / "CHANGELOG.md").read_text() == released("0.2.0")


@pytest.mark.parametrize(
    ("changelog", "left", "said"),
    [
        pytest.param(HEAD, {}, "has no section 0.2.0", id="nothing released yet"),
        pytest.param(released("0.1.0"), {"a_added": "One."}, "has no section 0.2.0", id="not written"),
        pytest.param(released("0.2.0"), {"a_added": "One."}, "a higher version", id="more since"),
    ],
)
def test_version_that_the_changelog_does_not_tell_is_no_release(
    tmp_path: Path, changelog: str, left: dict[str, str], said: str
) -> None:
    (reason,) = not_yet_released(project(tmp_path, changelog=changelog, **left))
    assert said in reason


def test_version_below_the_changelog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"^pyproject\.toml says 0\.2\.0, CHANGELOG\.md already 0\.10\.0$"):
        not_yet_released(project(tmp_path, changelog=released("0.10.0", "0.2.0")))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("## Unreleased\n", id="no version"),
        pytest.param("## 0.1.0 - 2026-13-01\n", id="no day"),
        pytest.param("## one - 2026-11-01\n", id="not a version"),
        pytest.param(released("0.1.0", "0.2.0"), id="oldest first"),
        pytest.param(released("0.1.0", "0.1.0"), id="twice"),
    ],
)
def test_heading_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match=r"^CHANGELOG\.md: "):
        sections(text)


@pytest.mark.parametrize(
    ("name", "text"), [("a.new.md", "One."), ("a.md", "One."), ("a.added.txt", "One."), ("a.added.md", " \n")]
)
def test_fragment_that_is_wrong_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ReleaseError, match=r"^changelog\.d/"):
        fragments(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_fragment_of_each_kind_is_told(tmp_path: Path, kind: str) -> None:
    write(project(tmp_path, **{f"a_{kind}": "One."}), DAY)
    assert f"### {kind.capitalize()}\n\n- One.\n" in (tmp_path / "CHANGELOG.md").read_text()
