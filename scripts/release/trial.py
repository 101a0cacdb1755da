"""A wheel in an empty environment: what it needs is pinned, and its commands answer where there is nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from scripts.release.project import Project, ReleaseError, run

COMMANDS: Final = (("--version",), ("--help",), ("list",), ("config", "check"))


def install(wheel: Path, project: Project, environment: Path) -> Path:
    """Make *environment* of the hashed requirements and *wheel* alone; return where its packages are."""
    run(sys.executable, "-m", "venv", environment, directory=project.root)
    pip = (environment / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")
    requirements = project.root / "requirements" / "run.txt"
    run(*pip, "install", "--require-hashes", "--requirement", requirements, directory=environment, timeout=600)
    run(*pip, "install", "--no-index", "--no-deps", wheel.resolve(), directory=environment)
    run(*pip, "check", directory=environment)
    (packages,) = (environment / "lib").glob("python3*/site-packages")
    return packages


def try_out(environment: Path, empty: Path, *, version: str) -> None:
    """Type commands in *empty*; raises ReleaseError when one fails, or writes a file."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ONEIRIC_", "PYTHON"))}
    said = {words: run(environment / "bin" / "oneiric", *words, directory=empty, environ=environ) for words in COMMANDS}
    if version not in said[("--version",)].split():
        raise ReleaseError(f"oneiric --version does not say {version}: {said[('--version',)]}")
    if left := sorted(path.name for path in empty.iterdir()):
        raise ReleaseError(f"commands that only look wrote {', '.join(left)}")
