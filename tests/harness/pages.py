"""Do what a page shows: write the files its blocks name, type its commands, compare what they print, run its tests.

A block ``LANGUAGE PATH`` is a file; a block ``console`` holds commands behind ``$ ``, below each all that it prints.
For a page that changes keys and directories on its way there is ``walk``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Final, NamedTuple

from tests.harness.markdown import Block, Page

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
PATIENCE: Final = 10.0
LOOKS: Final = re.compile(
    r"oneiric (?:cache verify|config show|doctor|explain|health|list|metrics|remote-status|status)\b"
)
"""Commands that only look: what they are to see may take a moment."""
_VARIES: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)? m?s\b"), "SPAN"),
    (re.compile(r"(?<= )\d+\.\d+(?= )"), "FIGURE"),
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), r"\1:PORT"),
    (re.compile(r"(?<=[a-z]#)\d+\b"), "NUMBER"),
    (re.compile(r"(?<=\S) {2,}(?=\S)"), "  "),  # columns are as wide as their widest cell
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


class Typed(NamedTuple):
    """A command of a page, what the page says that it prints, and where that stands."""

    room: str
    command: str
    quoted: str
    where: str


def write_files(page: Page, directory: Path, names: Mapping[str, str] = NOTHING) -> Path:
    """Write every file of *page* into *directory*, which is returned.

    Args:
        names: what stands for what there, such as a free port for the one of the page.
    """
    for block in page.blocks:
        if block.use and block.language != "console":
            write(block, directory, names)
    return directory


def write(block: Block, directory: Path, names: Mapping[str, str] = NOTHING) -> None:
    """Write the file that *block* is."""
    path = directory / block.use
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(renamed(block.text, names))


def typed(page: Page) -> list[Typed]:
    """Return the commands of *page* in their order, each with what the page says that it prints."""
    return [found for block in page.blocks if block.language == "console" for found in commands(block)]


def commands(block: Block) -> list[Typed]:
    """Return the commands of a ``console`` block, each with what it prints."""
    found: list[tuple[list[str], list[str], int]] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            found.append(([line.removeprefix("$ ")], [], number))
        elif found and not found[-1][1] and found[-1][0][-1].endswith("\\"):
            found[-1][0].append(line)
        else:
            assert found, f"{block.page.name}:{number}: no command prints this"
            found[-1][1].append(line)
    return [
        Typed(block.use, "\n".join(lines), "\n".join(printed), f"{block.page.name}:{number}")
        for lines, printed, number in found
    ]


def unused(page: Page) -> list[int]:
    """Return the lines of the blocks that are neither files nor commands."""
    return [block.line for block in page.blocks if not block.use and block.language != "console"]


def run(line: str, directory: Path, environ: Mapping[str, str] = NOTHING) -> subprocess.CompletedProcess[str]:
    """Type *line* in *directory*; stdout of the answer has both streams, as on a screen."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env={**inherited, "NO_COLOR": "1", **environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def answer(
    command: Typed,
    directory: Path,
    *,
    environ: Mapping[str, str] = NOTHING,
    names: Mapping[str, str] = NOTHING,
) -> subprocess.CompletedProcess[str]:
    """Type *command* and return its answer; raises AssertionError unless it prints what the page says.

    One that only looks is typed again for a while: what it is to see may take a moment.
    """
    deadline = monotonic() + (PATIENCE if LOOKS.match(command.command) else 0.0)
    said = plain(renamed(command.quoted, names))
    while True:
        ran = run(renamed(command.command, names), directory, environ)
        if plain(ran.stdout) == said:
            return ran
        if monotonic() > deadline:
            told = f"{command.where}: {command.command}\nexit code {ran.returncode}"
            raise AssertionError(f"{told}\n{plain(ran.stdout)}\n--- and not\n{said}")
        sleep(0.1)


def require_tests_pass(directory: Path, file: str, environ: Mapping[str, str] = NOTHING) -> None:
    """Run the tests that a page has in *file*; raises AssertionError unless every one that is written there passes."""
    ran = run(f"python -m pytest -q -W error -p no:cacheprovider -p no:xdist {file}", directory, environ)
    written = re.findall(r"^ *(?:async )?def test_", (directory / file).read_text(), re.MULTILINE)
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert ran.returncode == 0, ran.stdout
    assert passed is not None
    assert int(passed[1]) >= len(written) > 0, ran.stdout


def require_typed(directory: Path, *files: str) -> None:
    """Check the types of what a page has in *files*; raises AssertionError with what mypy says when it is strict."""
    ran = run(f"python -m mypy --strict --cache-dir {os.devnull} {' '.join(files)}", directory)
    assert ran.returncode == 0, ran.stdout


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return *text* with every name replaced by what stands for it."""
    for name, real in names.items():
        text = text.replace(name, real)
    return text


def plain(text: str) -> str:
    """Return *text* without what varies from run to run: instants, durations, ports, widths of columns."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return text.strip()
