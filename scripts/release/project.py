"""The project as its files say it is: name, version, what is tracked, and when it was changed last."""

from __future__ import annotations

import os
import subprocess
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec


class ReleaseError(Exception):
    """What was built must not be published; the message says why."""


def run(*command: str | Path, directory: Path, environ: dict[str, str] | None = None, timeout: float = 300) -> str:
    """Run *command* and return what it printed; raises ReleaseError when it fails."""
    ran = subprocess.run(
        command,
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if ran.returncode:
        said = (ran.stdout + ran.stderr).strip()
        raise ReleaseError(f"{' '.join(map(str, command))} ended with {ran.returncode}:\n{said}")
    return ran.stdout


class Project:
    """The tree at *root*: a clone, or an unpacked source distribution."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The table ``project`` of pyproject.toml."""
        table: dict[str, Any] = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return table

    @property
    def version(self) -> str:
        """The version that is being built."""
        return str(self.metadata["version"])

    @property
    def is_clone(self) -> bool:
        """Whether git knows this tree."""
        return (self.root / ".git").exists()

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The tracked files that are there; without git, all that .gitignore lets through."""
        if self.is_clone:
            listed = run("git", "ls-files", "-z", directory=self.root).split("\0")
            return tuple(sorted(name for name in listed if name and (self.root / name).is_file()))
        ignored = GitIgnoreSpec.from_lines((self.root / ".gitignore").read_text(encoding="utf-8").splitlines())
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return tuple(sorted(name for name in found if name != "PKG-INFO" and not ignored.match_file(name)))

    @property
    def changed(self) -> list[str]:
        """The tracked files that differ from the last commit."""
        if not self.is_clone:
            return []
        said = run("git", "status", "--porcelain", "--untracked-files=no", directory=self.root)
        return [line[3:] for line in said.splitlines()]

    @property
    def epoch(self) -> int:
        """The instant that everything built bears: of the last commit, else of the changelog.

        A source distribution gives its files the instant of the commit, so the two agree.
        """
        if self.is_clone:
            return int(run("git", "log", "-1", "--format=%ct", directory=self.root))
        return int((self.root / "CHANGELOG.md").stat().st_mtime)

    def export(self, target: Path) -> Path:
        """Copy the files, and nothing else, to *target*, as of the instant."""
        instant = self.epoch
        for name in self.files:
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((self.root / name).read_bytes())
            if os.access(self.root / name, os.X_OK):
                copy.chmod(0o755)
            os.utime(copy, (instant, instant))
        return target
