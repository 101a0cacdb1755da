"""What is installed, told without ``importlib.metadata`` where the names of directories suffice."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

from oneiric.config.host import this_host

METADATA = "Metadata-Version: 2.1\nName: Some_Thing\nVersion: 1.2+local.3\n"


def installed(name: str) -> str | None:
    return this_host().installed(name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory from which Python imports."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path), *sys.path])
    return tmp_path


def test_every_installed_distribution_is_known_with_its_version() -> None:
    names = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    assert len(names) > 10
    found = {name: Version(installed(name) or "") for name in names}
    assert found == {name: Version(metadata.version(name)) for name in names}  # some write "v1.0" in one place only


@pytest.mark.parametrize("name", ["Some_Thing", "some-thing", "SOME.THING", "some__thing"])
def test_every_spelling_of_a_name_is_the_same(place: Path, name: str) -> None:
    (place / "some_thing-1.2+local.3.dist-info").mkdir()
    assert installed(name) == "1.2+local.3"


def test_first_on_the_path_counts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory, version in (("a", "1"), ("b", "2")):
        (place / directory / f"some_thing-{version}.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(place / "a"), str(place / "b")])
    assert installed("some-thing") == "1"


def test_longer_name_is_another_distribution(place: Path) -> None:
    (place / "some_thing_else-1.dist-info").mkdir()
    assert installed("some-thing") is None


def test_distribution_in_a_zip_file_is_known(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(place / "all.zip", "w") as packed:
        packed.writestr("some_thing-1.2+local.3.dist-info/METADATA", METADATA)
    monkeypatch.setattr(sys, "path", [str(place / "all.zip"), *sys.path])
    assert installed("some-thing") == "1.2+local.3"


def test_distribution_installed_the_old_way_is_known(place: Path) -> None:
    (place / "Some_Thing.egg-info").mkdir()
    (place / "Some_Thing.egg-info" / "PKG-INFO").write_text(METADATA)
    assert installed("some-thing") == "1.2+local.3"
