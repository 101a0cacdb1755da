"""requirements/run.txt, read: each package with its version, its marker and the digests of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from scripts.release.project import ReleaseError


class Pinned(NamedTuple):
    """One package: any file with one of the digests (SHA-256) is what was tested."""

    name: NormalizedName
    version: str
    marker: str
    digests: tuple[str, ...]


def read_pinned(path: Path) -> Iterator[Pinned]:
    """Yield what *path* pins, in its order; raises ReleaseError for a line without an exact version and a digest."""
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement = Requirement(line.partition(" --hash")[0])
        versions = [one.version for one in requirement.specifier if one.operator == "=="]
        digests = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line))
        if len(versions) != 1 or not digests:
            raise ReleaseError(f"{path}: not pinned by version and digest: {line}")
        yield Pinned(canonicalize_name(requirement.name), versions[0], str(requirement.marker or ""), digests)
