"""Markdown as our documents use it: fenced blocks, headings and the anchors GitHub gives them, links, code in prose.

A small part of the language, read strictly: what could be read in two ways is a ``MarkdownError``, never a silent pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_FENCE: Final = re.compile(r"( *)(`{3,}|~{3,})(.*)")
_HEADING: Final = re.compile(r"(#{1,6})\s+(.+?)\s*#*")
_SPAN: Final = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK: Final = re.compile(r"\]\(\s*<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")


class MarkdownError(ValueError):
    """A document that is not the Markdown of this project."""


class Block(NamedTuple):
    """A fenced block: its file, the line of its opening fence, the words behind that, and what is in it."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        """The first word of the info string; "" for none."""
        return self.info.partition(" ")[0]

    @property
    def use(self) -> str:
        """What follows the language."""
        return self.info.partition(" ")[2]

    @property
    def statements(self) -> list[str]:
        """Its lines but comments and empty ones."""
        lines = (line.strip() for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


class Heading(NamedTuple):
    """A heading: its level, its text, and the anchor that leads to it."""

    level: int
    text: str
    anchor: str


class Page(NamedTuple):
    """A document, taken apart. ``prose`` is all but the blocks, with as many lines as the whole."""

    path: Path
    blocks: tuple[Block, ...]
    prose: str

    @property
    def headings(self) -> list[Heading]:
        """Its headings; one that is not the first of its text has the number of its repetition in its anchor."""
        found: list[Heading] = []
        seen: dict[str, int] = {}
        for line in self.prose.splitlines():
            if heading := _HEADING.fullmatch(line):
                slug = slug_of(heading[2])
                count = seen[slug] = seen.get(slug, -1) + 1
                found.append(Heading(len(heading[1]), heading[2], f"{slug}-{count}" if count else slug))
        return found

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings."""
        return {heading.anchor for heading in self.headings}

    @property
    def links(self) -> list[str]:
        """Where its links lead, in their order; what looks like one inside code is none."""
        return _LINK.findall(_SPAN.sub(_blank, self.prose))

    @property
    def spans(self) -> list[str]:
        """The code in its prose, each in one line."""
        return [" ".join(found[2].split()) for found in _SPAN.finditer(self.prose)]


def read(path: Path) -> Page:
    """Take the document at *path* apart; raises MarkdownError."""
    blocks: list[Block] = []
    prose: list[str] = []
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        fence = _FENCE.fullmatch(line)
        if fence is None:
            prose.append(line)
            continue
        if fence[2] != "```":
            raise MarkdownError(f"{path}:{number}: a fence is three backticks")
        if "`" in fence[3]:
            raise MarkdownError(f"{path}:{number}: a fence, or code in prose? It has more backticks")
        inside = list(_until_closed(lines, indent=fence[1], where=f"{path}:{number}"))
        blocks.append(Block(path, number, fence[3].strip(), "".join(f"{one}\n" for one in inside)))
        prose += [""] * (len(inside) + 2)
    return Page(path, tuple(blocks), "\n".join(prose))


def _until_closed(lines: Iterator[tuple[int, str]], *, indent: str, where: str) -> Iterator[str]:
    for _, line in lines:
        if line == f"{indent}```":
            return
        if _FENCE.fullmatch(line):
            raise MarkdownError(f"{where}: another fence begins before this block ends: {line}")
        yield line.removeprefix(indent)
    raise MarkdownError(f"{where}: the block does not end")


def slug_of(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading: letters, digits, ``_`` and ``-``, with ``-`` for spaces."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])
