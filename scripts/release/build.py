"""Wheel and source distribution, built twice under different conditions and compared byte by byte."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scripts.release.project import Project, ReleaseError, run


class Built(NamedTuple):
    """What is published, but for its bill of materials."""

    wheel: Path
    sdist: Path


def build(project: Project, out: Path, *, umask: int = 0o022, hash_seed: int = 0) -> Built:
    """Build from an export of *project* into *out*: the source distribution, and from it the wheel.

    Args:
        umask: what the files of the export lose of their modes.
        hash_seed: the order in which Python iterates over sets of strings.
    """
    environ = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(project.epoch),
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with TemporaryDirectory(prefix="oneiric-build-") as directory:
        before = os.umask(umask)
        try:
            source = project.export(Path(directory) / "source")
            command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out.resolve(), source)
            run(*command, directory=source, environ=environ)
        finally:
            os.umask(before)
    (wheel,) = out.glob(f"*-{project.version}-*.whl")
    (sdist,) = out.glob(f"*-{project.version}.tar.gz")
    return Built(wheel, sdist)


def build_twice(project: Project, out: Path) -> Built:
    """Build into *out*; raises ReleaseError unless a second build, elsewhere and otherwise, has the same bytes."""
    for older in out.glob("oneiric-*"):
        older.unlink()
    built = build(project, out)
    with TemporaryDirectory(prefix="oneiric-again-") as directory:
        again = build(project, Path(directory), umask=0o077, hash_seed=1)
        for one, other in zip(built, again, strict=True):
            if one.read_bytes() != other.read_bytes():
                raise ReleaseError(f"{one.name} is not the same when it is built again")
    return built
