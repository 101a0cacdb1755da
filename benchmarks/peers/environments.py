"""The environments that contenders run in: all made with one interpreter, each from its own pinned requirements."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
PLACE: Final = ROOT / "build" / "peers"
WANTED: Final = (3, 13)
"""The published project needs it; whoever has none compares the others in the interpreter that runs this."""
PUBLISHED: Final = "published"
OURS: Final = "ours"
LIMITS: Final = "limits"
DEADLINE: Final = 900.0

# What is installed for a contender, by its name; nothing where it is the language alone.
REQUIREMENTS: Final[Mapping[str, Path | None]] = {
    LIMITS: None,
    OURS: ROOT / "requirements" / "run.txt",
    **{
        name.replace("-", "_").replace(".", "_"): HERE / "requirements" / f"{name}.txt"
        for name in (
            "dependency-injector",
            "dishka",
            "lagom",
            "pluggy",
            "stevedore",
            "svcs",
            "that-depends",
            "wireup",
            "zope.interface",
            PUBLISHED,
        )
    },
}


@dataclass(frozen=True)
class Environment:
    """Where a contender runs, or why it cannot."""

    name: str
    python: Path = Path()
    error: str = ""

    @property
    def shown(self) -> str:
        """What the tables call it: the name of its distribution."""
        requirements = REQUIREMENTS.get(self.name)
        return requirements.stem if requirements and requirements.is_relative_to(HERE) else self.name

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's code alone, whose failure is a failure of the benchmark."""
        return self.name in (OURS, LIMITS)

    @property
    def contender(self) -> Path:
        """The module that says what it does."""
        return HERE / "contenders" / f"{self.name}.py"

    @property
    def path(self) -> str:
        """What its ``PYTHONPATH`` is: of all contenders, ours alone comes from this checkout."""
        return str(ROOT) if self.name == OURS else ""


@cache
def environment(name: str, place: Path = PLACE) -> Environment:
    """Return the environment of one contender, made if it is not there or was made from something else."""
    python, version = interpreter()
    if name == PUBLISHED and version < WANTED:
        return Environment(name, error=f"needs Python {'.'.join(map(str, WANTED))}")
    directory, requirements = place / name, REQUIREMENTS[name]
    content = b"" if requirements is None else requirements.read_bytes()
    made_from = hashlib.sha256(content + str((python.resolve(), version)).encode()).hexdigest()
    mark, inside = directory / ".made-from", directory / "bin" / "python"
    if not mark.exists() or mark.read_text(encoding="ascii") != made_from:
        shutil.rmtree(directory, ignore_errors=True)
        if error := _make(python, directory, requirements):
            return Environment(name, error=error)
        mark.write_text(made_from, encoding="ascii")
    return Environment(name, inside)


@cache
def interpreter() -> tuple[Path, tuple[int, ...]]:
    """Return the interpreter that every environment is made with, and its version."""
    name = f"python{'.'.join(map(str, WANTED))}"
    found = shutil.which(name)
    beside = sorted(Path.home().glob(f".pyenv/versions/{'.'.join(map(str, WANTED))}*/bin/python"))
    for python in [*([Path(found)] if found else []), *beside, Path(sys.executable)]:
        code = "import ensurepip, ssl, venv, sys; print(*sys.version_info[:3])"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return python, tuple(int(number) for number in done.stdout.split())
    raise FileNotFoundError("no Python here can make an environment")


def _make(python: Path, directory: Path, requirements: Path | None) -> str:
    """Make an environment; return "" or why there is none."""
    commands: list[Sequence[str | Path]] = [[python, "-m", "venv", directory]]
    if requirements is not None:
        install = (directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        commands.append([*install, "--only-binary=:all:", "--require-hashes", "-r", requirements])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            return f"not installed: {lines[-1] if lines else f'exit {done.returncode}'}"
    return ""
