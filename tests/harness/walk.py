"""Do what a how-to says: write the files its blocks name, type its commands in order, compare what it quotes.

A block is ``console ROOM``, typed in the directory of that name, or ``LANGUAGE ROOM/PATH``, a file to write. Below a
command stands what it prints, all of it. Key ids, keys and digests that a page quotes stand for those of the run, each
for the same one throughout; instants, durations and sizes are not compared, nor the order of ids in a list.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.harness.markdown import Block, Page, slug_of
from tests.harness.pages import LOOKS, PATIENCE, Typed, commands, plain, renamed, run

_TOKEN: Final = re.compile(r"(?<![\w+/])(?:[0-9a-f]{64}|[0-9a-f]{16}|[A-Za-z0-9+/]{43}=)(?![\w+/=])")
_SIZE: Final = re.compile(r"\b[\d,]+ bytes\b")
_IDS: Final = re.compile(r"[0-9a-f]{16}(?:, [0-9a-f]{16})+")


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
        deadline = time.monotonic() + (PATIENCE if LOOKS.match(typed.command) else 0.0)
        while True:
            ran = run(self._here(typed.command), self.rooms[typed.room], self._environ)
            status, printed = ran.returncode, ran.stdout.rstrip("\n")
            said, known = self._compared(typed.quoted, printed)
            fails = typed.quoted.startswith("error[") or "\nerror[" in typed.quoted
            if (said, status != 0) == (_bare(printed), fails):
                self.names |= known
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{typed.where}: {typed.command}\nexit code {status}\n{printed}\n--- and not\n{said}"
                )

    def _here(self, text: str) -> str:
        """Return *text* of the page as it reads in this run."""
        return renamed(text, self.names)

    def _compared(self, quoted: str, printed: str) -> tuple[str, dict[str, str]]:
        """Return what is quoted as it would read here, and what its new tokens stand for."""
        known: dict[str, str] = {}
        taken = set(self.names.values())
        for said, real in zip(_TOKEN.findall(quoted), _TOKEN.findall(printed), strict=False):
            if said not in self.names and said not in known and real not in taken:
                known[said] = real
                taken.add(real)
        return _bare(renamed(self._here(quoted), known)), known


def _bare(text: str) -> str:
    """Return *text* without what varies from run to run."""
    return _IDS.sub(lambda ids: ", ".join(sorted(ids[0].split(", "))), _SIZE.sub("SIZE", plain(text)))
