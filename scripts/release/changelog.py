"""CHANGELOG.md, and the fragments of changelog.d that become its next section.

A fragment is ``NAME.KIND.md``: what one change means for people who run Oneiric, in a few lines.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from packaging.version import InvalidVersion, Version

from scripts.release.project import Project, ReleaseError

KINDS: Final = ("added", "changed", "deprecated", "removed", "fixed", "security")
_FRAGMENT: Final = re.compile(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md")
_SECTION: Final = re.compile(r"^## (?P<version>\S+) - (?P<day>\d{4}-\d\d-\d\d)$")


class Section(NamedTuple):
    """What the changelog says of one version, by its heading."""

    version: Version
    day: date


def sections(text: str) -> list[Section]:
    """Return the sections of a changelog; raises ReleaseError for a heading that is none, or out of order."""
    found = []
    for line in text.splitlines():
        if not line.startswith("## "):
            continue
        matched = _SECTION.fullmatch(line)
        try:
            if matched is None:
                raise ReleaseError(f"CHANGELOG.md: not '## VERSION - YYYY-MM-DD': {line}")
            found.append(Section(Version(matched["version"]), date.fromisoformat(matched["day"])))
        except (InvalidVersion, ValueError) as error:
            raise ReleaseError(f"CHANGELOG.md: {line}: {error}") from error
    for newer, older in pairwise(found):
        if newer.version <= older.version or newer.day < older.day:
            raise ReleaseError(f"CHANGELOG.md: {newer.version} stands above {older.version}; the newest comes first")
    return found


def fragments(directory: Path) -> list[Path]:
    """Return the fragments in *directory*; raises ReleaseError for a name of another form, or one without words."""
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    for path in found:
        if not _FRAGMENT.fullmatch(path.name):
            raise ReleaseError(f"changelog.d/{path.name}: not NAME.KIND.md, KIND one of {', '.join(KINDS)}")
        if not path.read_text(encoding="utf-8").strip():
            raise ReleaseError(f"changelog.d/{path.name} says nothing")
    return found


def compose(version: str, day: date, found: Iterable[Path]) -> str:
    """Return the section that fragments become: a list for each kind, in the order of KINDS."""
    listed = tuple(found)
    parts = [f"## {version} - {day.isoformat()}\n"]
    for kind in KINDS:
        items = [path for path in listed if path.name.endswith(f".{kind}.md")]
        if items:
            parts += [f"### {kind.capitalize()}\n", "\n".join(_item(path) for path in items) + "\n"]
    return "\n".join(parts)


def _item(path: Path) -> str:
    first, *others = path.read_text(encoding="utf-8").strip().splitlines()
    return "\n".join([f"- {first}", *(f"  {line}".rstrip() for line in others)])


def add(text: str, section: str) -> str:
    """Return a changelog with *section* above the newest one."""
    head, mark, tail = text.partition("\n## ")
    return f"{head.rstrip()}\n\n{section}{mark}{tail}"


def not_yet_released(project: Project) -> list[str]:
    """Say what keeps the version of *project* from being a release; raises ReleaseError for files that are wrong."""
    found = sections((project.root / "CHANGELOG.md").read_text(encoding="utf-8"))
    waiting = fragments(project.root / "changelog.d")
    version = Version(project.version)
    if found and version < found[0].version:
        raise ReleaseError(f"pyproject.toml says {version}, CHANGELOG.md already {found[0].version}")
    if not found or found[0].version != version:
        return [f"CHANGELOG.md has no section {version}: scripts/changelog --write"]
    return [f"changelog.d has what {version} does not tell: a higher version in pyproject.toml"] if waiting else []


def write(project: Project, day: date) -> None:
    """Put the section into the changelog and remove its fragments; raises ReleaseError when it is there already."""
    path = project.root / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8")
    waiting = fragments(project.root / "changelog.d")
    if not waiting:
        raise ReleaseError("changelog.d has no fragments: nothing to tell")
    changed = add(text, compose(project.version, day, waiting))
    sections(changed)
    path.write_text(changed, encoding="utf-8")
    for fragment in waiting:
        fragment.unlink()


def main() -> None:
    """Print the next section, or write it."""
    parser = argparse.ArgumentParser(prog="scripts/changelog", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="put it into CHANGELOG.md, and remove the fragments")
    options = parser.parse_args()
    project = Project(Path.cwd())
    today = datetime.now(UTC).date()
    try:
        if options.write:
            write(project, today)
        else:
            print(compose(project.version, today, fragments(project.root / "changelog.d")), end="")
    except ReleaseError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
