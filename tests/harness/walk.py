"""Do what a how-to says: write the files its blocks name, type its commands in order, compare what it quotes.

A block is ``console ROOM``, typed in the directory of that name, or ``LANGUAGE ROOM/PATH``, a file to write. Below a
command stands what it prints, all of it. Key ids, keys and digests that a page quotes stand for those of the run, each
for the same one throughout; instants, durations and sizes are not compared, nor the order of ids in a list.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.harness.markdown import Block, Page, slug_of

_TOKEN: Final = re.compile(r"(?<![\w+/])(?:[0-9a-f]{64}|[0-9a-f]{16}|[A-Za-z0-9+/]{43}=)(?![\w+/=])")
_VARIES: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"), "TIME"),
    (re.compile(r"\d+(?:\.\d+)? ms\b"), "SPAN"),
    (re.compile(r"\b[\d,]+ bytes\b"), "SIZE"),
)
_IDS: Final = re.compile(r"[0-9a-f]{16}(?:, [0-9a-f]{16})+")
_LOOKS: Final = re.compile(r"oneiric (?:remote-status|config show|list|explain|status|cache verify|health)\b")
PATIENCE: Final = 10.0


class Typed(NamedTuple):
    """A command of a page, what the page says that it prints, and where that stands."""

    room: str
    command: str
    quoted: str
    where: str


class Walk:
    """Walks through a page.

    Args:
        rooms: the directories that the page speaks of, by the names in its blocks.
        names: what stands for what in this run, such as the page's URL for that of a server on loopback.
        settled: called when a file was written, to wait until it is noticed.
    """

    def __init__(
        self,
        page: Page,
        rooms: Mapping[str, Path],
        *,
        names: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        settled: Callable[[Path], None] = lambda _path: None,
    ) -> None:
        self.page = page
        self.rooms = rooms
        self.names = dict(names or {})
        self._environ = dict(environ or {})
        self._settled = settled

    def section(self, heading: str) -> list[Block]:
        """Return the blocks below a heading, up to the next."""
        lines = self.page.prose.splitlines()
        starts = [at for at, line in enumerate(lines, 1) if re.match(r"#{1,6} ", line)]
        (start,) = [at for at in starts if slug_of(lines[at - 1].lstrip("# ")) == slug_of(heading)]
        end = next((at for at in starts if at > start), len(lines) + 1)
        return [block for block in self.page.blocks if start < block.line < end]

    def take(self, heading: str) -> None:
        """Do all that stands below a heading."""
        blocks = self.section(heading)
        assert blocks, f"{heading}: nothing to do"
        for block in blocks:
            self.do(block)

    def do(self, block: Block) -> None:
        """Write the file that a block is, or type its commands."""
        if block.language == "console":
            for typed in commands(block):
                self.type(typed)
            return
        room, _, path = block.use.partition("/")
        target = self.rooms[room] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self._here(block.text))
        self._settled(target)

    def type(self, typed: Typed) -> None:
        """Type a command until it prints what is quoted: once, or for a while where it only looks."""
        deadline = time.monotonic() + (PATIENCE if _LOOKS.match(typed.command) else 0.0)
        while True:
            status, printed = self._run(typed)
            said, known = self._compared(typed.quoted, printed)
            fails = typed.quoted.startswith("error[") or "\nerror[" in typed.quoted
            if (said, status != 0) == (_bare(printed), fails):
                self.names |= known
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{typed.where}: {typed.command}\nexit code {status}\n{printed}\n--- and not\n{said}"
                )

    def _run(self, typed: Typed) -> tuple[int, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-c", self._here(typed.command)],
            cwd=self.rooms[typed.room],
            env={**os.environ, "NO_COLOR": "1", **self._environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return ran.returncode, ran.stdout.rstrip("\n")

    def _here(self, text: str) -> str:
        """Return *text* of the page as it reads in this run."""
        for name, real in self.names.items():
            text = text.replace(name, real)
        return text

    def _compared(self, quoted: str, printed: str) -> tuple[str, dict[str, str]]:
        """Return what is quoted as it would read here, and what its new tokens stand for."""
        known: dict[str, str] = {}
        taken = set(self.names.values())
        for said, real in zip(_TOKEN.findall(quoted), _TOKEN.findall(printed), strict=False):
            if said not in self.names and said not in known and real not in taken:
                known[said] = real
                taken.add(real)
        text = self._here(quoted)
        for name, real in known.items():
            text = text.replace(name, real)
        return _bare(text), known


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


def _bare(text: str) -> str:
    """Return *text* without what varies from run to run."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return _IDS.sub(lambda ids: ", ".join(sorted(ids[0].split(", "))), text)
