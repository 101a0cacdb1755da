"""What is published holds what belongs there, the same bytes whoever builds it, and is refused otherwise."""

from __future__ import annotations

import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from scripts.release.build import Built, build, build_twice
from scripts.release.contents import wrong_with_sdist, wrong_with_wheel
from scripts.release.dist import require_release
from scripts.release.project import Project, ReleaseError
from scripts.release.trial import try_out

ROOT = Path(__file__).parents[2]
CHANCE = """
import os
from hatchling.metadata.plugin.interface import MetadataHookInterface

class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata):
        metadata["description"] = os.urandom(8).hex()
"""
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "chance"
version = "1"
dynamic = ["description"]
[tool.hatch.metadata.hooks.custom]
[tool.hatch.build.targets.wheel]
include = ["hatch_build.py"]
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return what is tracked as it is now: others may write to the tree while we build."""
    return Project(Project(ROOT).export(tmp_path_factory.mktemp("export")))


@pytest.fixture(scope="session")
def built(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Return a wheel and a source distribution of it."""
    return build(project, tmp_path_factory.mktemp("dist"))


def bytes_of(built: Built) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in built}


def small(directory: Path, *, commands: str) -> Path:
    """Make an environment whose ``oneiric`` is a shell script."""
    program = directory / "environment" / "bin" / "oneiric"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{commands}\n")
    program.chmod(0o755)
    (directory / "empty").mkdir()
    return directory / "environment"


def test_export_has_every_tracked_file(project: Project) -> None:
    assert project.files == Project(ROOT).files


def test_wheel_holds_the_package_and_no_more(built: Built, project: Project) -> None:
    assert wrong_with_wheel(built.wheel, project) == []


def test_sdist_holds_all_that_is_tracked(built: Built, project: Project) -> None:
    assert wrong_with_sdist(built.sdist, project) == []


def test_build_under_other_conditions_has_the_same_bytes(built: Built, project: Project, tmp_path: Path) -> None:
    assert bytes_of(build(project, tmp_path, umask=0o077, hash_seed=1)) == bytes_of(built)


def test_sdist_builds_itself_again(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert bytes_of(build(Project(unpacked), tmp_path / "dist")) == bytes_of(built)


def test_build_that_depends_on_chance_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, text in {
        "hatch_build.py": CHANCE,
        "pyproject.toml": PYPROJECT,
        ".gitignore": "",
        "CHANGELOG.md": "",
    }.items():
        (source / name).write_text(text)
    with pytest.raises(ReleaseError, match=r"^chance-1-\S+ is not the same when it is built again$"):
        build_twice(Project(source), tmp_path / "dist")


def test_wheel_with_tests_and_without_types_is_refused(built: Built, project: Project, tmp_path: Path) -> None:
    wheel = tmp_path / built.wheel.name
    with ZipFile(built.wheel) as good, ZipFile(wheel, "w") as bad:
        for name in good.namelist():
            if name != "oneiric/py.typed":
                bad.writestr(name, good.read(name))
        bad.writestr("tests/test_it.py", "")
    assert wrong_with_wheel(wheel, project) == [
        "lacks oneiric/py.typed",
        "has tests/test_it.py, which does not belong there",
    ]


def test_wheel_without_a_command_is_refused(built: Built, project: Project, tmp_path: Path) -> None:
    wheel = tmp_path / built.wheel.name
    with ZipFile(built.wheel) as good, ZipFile(wheel, "w") as bad:
        for name in good.namelist():
            text = good.read(name)
            if name.endswith("/entry_points.txt"):
                text = text.replace(b"oneiric-tuf-client", b"something-else")
            bad.writestr(name, text)
    assert wrong_with_wheel(wheel, project) == ["entry_points.txt is not what pyproject.toml says"]


def test_sdist_without_what_its_tests_read_is_refused(built: Built, project: Project, tmp_path: Path) -> None:
    sdist = tmp_path / built.sdist.name
    with tarfile.open(built.sdist) as good, tarfile.open(sdist, "w:gz") as bad:
        for member in good.getmembers():
            if not member.name.endswith("/requirements/run.txt"):
                bad.addfile(member, good.extractfile(member))
    assert wrong_with_sdist(sdist, project) == [f"lacks oneiric-{project.version}/requirements/run.txt"]


def test_trial_passes_when_the_commands_answer_and_write_nothing(tmp_path: Path) -> None:
    environment = small(tmp_path, commands="echo oneiric 1.2.3")
    try_out(environment, tmp_path / "empty", version="1.2.3")


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        pytest.param("echo oneiric 1.2.30", "does not say 1.2.3", id="another version"),
        pytest.param("echo oneiric 1.2.3; touch left", "wrote left", id="a file"),
        pytest.param('echo oneiric 1.2.3; test "$1" != config', "config check ended with 1", id="a failure"),
    ],
)
def test_trial_refuses(tmp_path: Path, commands: str, said: str) -> None:
    environment = small(tmp_path, commands=commands)
    with pytest.raises(ReleaseError, match=said):
        try_out(environment, tmp_path / "empty", version="1.2.3")


def test_release_with_fragments_left_is_refused(project: Project, tmp_path: Path) -> None:
    copy = Project(project.export(tmp_path / "copy"))
    (copy.root / "changelog.d").mkdir(exist_ok=True)
    (copy.root / "changelog.d" / "more.added.md").write_text("More.\n")
    with pytest.raises(ReleaseError, match=r"^not a release: "):
        require_release(copy, strict=True)
