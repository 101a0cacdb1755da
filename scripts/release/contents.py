"""What must be, and must not be, inside a wheel and a source distribution."""

from __future__ import annotations

import configparser
import tarfile
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

from scripts.release.project import Project


def wrong_with_wheel(wheel: Path, project: Project) -> list[str]:
    """Say what is wrong with *wheel*: it holds the package with its marker of types, the licence, and no more."""
    about = f"oneiric-{project.version}.dist-info"
    expected = {name for name in project.files if name.startswith("oneiric/")}
    expected |= {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    with ZipFile(wheel) as archive:
        found = set(archive.namelist())
        wrong = _differences(expected | {"oneiric/py.typed"}, found)
        if wrong:
            return wrong
        points = archive.read(f"{about}/entry_points.txt").decode()
        metadata = message_from_bytes(archive.read(f"{about}/METADATA"))
    stated = {"Name": project.metadata["name"], "Version": project.version, "License-Expression": "MIT"}
    wrong += [f"{name} is {metadata[name]}" for name, value in stated.items() if metadata[name] != value]
    if _entry_points(points) != _expected_entry_points(project):
        wrong.append("entry_points.txt is not what pyproject.toml says")
    return wrong


def wrong_with_sdist(sdist: Path, project: Project) -> list[str]:
    """Say what is wrong with *sdist*: it holds what is tracked, so its own tests find all they read, and no more."""
    top = f"oneiric-{project.version}/"
    with tarfile.open(sdist) as archive:
        found = {member.name for member in archive.getmembers()}
    return _differences({top + name for name in (*project.files, "PKG-INFO")}, found)


def _differences(expected: set[str], found: set[str]) -> list[str]:
    return [f"lacks {name}" for name in sorted(expected - found)] + [
        f"has {name}, which does not belong there" for name in sorted(found - expected)
    ]


def _entry_points(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def _expected_entry_points(project: Project) -> dict[str, dict[str, str]]:
    return {"console_scripts": project.metadata["scripts"], **project.metadata["entry-points"]}
