"""``docs/tutorial.md``: every file written, every command typed in order in two real shells, every answer compared.

A ``console`` block is typed in the reader's first shell, and below a command stands all that it prints. A ``console
daemon`` block is typed in the second; what it quotes are lines of that shell in their order, with others between them.
Instants, durations, ids, keys, counts of calls, versions, users and the widths of columns are not compared.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.harness.markdown import Block, read

PAGE = read(Path(__file__).parents[2] / "docs" / "tutorial.md")
CHECKOUT: Final = "$HOME/oneiric/.venv"
DAEMON: Final = "oneiric orchestrate"
CTRL_C: Final = "^C"
COMPLAINS: Final = ": oneiric doctor"
PATIENCE: Final = 30.0
_VARIES: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)|^\d\d:\d\d:\d\d(?= )", re.MULTILINE), "TIME"),
    (re.compile(r"\b\d+\.\d+(?= ms\b)|(?<=duration_ms=)\d+\.\d+|(?<=  )\d+\.\d+(?=  )|\b\d+\.\d+(?= s ago)"), "SPAN"),
    (re.compile(r"\b\S+ \(uid \d+\)"), "USER"),
    (re.compile(r"(?<=pid=)\d+|(?<=127\.0\.0\.1:)\d+|(?<=uid=)\d+"), "NUMBER"),
    (re.compile(r"\b[0-9a-f]{16}\b|(?<!\S)[A-Za-z0-9+/]{43}="), "KEY"),
    (re.compile(r"(?<=oneiric )\d+\.\d+\.\d+|(?<=version=)\d+\.\d+\.\d+(?= socket)"), "VERSION"),
    (re.compile(r"^\d+(?= x )", re.MULTILINE), "COUNT"),
    (re.compile(r" {2,}"), "  "),
)


class Shell:
    """A shell in which is typed; what it and its commands print arrives line by line."""

    def __init__(self, directory: Path) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ONEIRIC_")}
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=directory,
            env={**environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "ONEIRIC_API__HTTP": "127.0.0.1:0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def type(self, command: str) -> None:
        """Type a command, whose end is marked by its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.write(f'{{ {command}\n}} < /dev/null; echo "--$?--"\n')
        self._process.stdin.flush()

    def press_ctrl_c(self) -> None:
        """Interrupt all that runs in it, as a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def read_until(self, pattern: str) -> list[str]:
        """Wait for a line that, without what varies, is *pattern*; return what came, with that line at the end."""
        came: list[str] = []
        while not came or not re.fullmatch(pattern, bare(came[-1])):
            try:
                came.append(self._lines.get(timeout=PATIENCE))
            except queue.Empty:
                raise AssertionError("\n".join([f"within {PATIENCE:g} s came no {pattern}, but", *came])) from None
        return came

    def end(self) -> None:
        """Close it, and end what it still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Reader:
    """Does what the page says, in one directory and two shells."""

    def __init__(self, place: Path, shells: dict[str, Shell]) -> None:
        self._place = place
        self._shells = shells

    def do(self, block: Block) -> None:
        """Write the file that a block is, or type what it shows and compare."""
        if block.language != "console":
            path = self._place / "tutorial" / block.use
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
            return
        shell = self._shells[block.use]
        for line, quoted in commands(block):
            if line == CTRL_C:
                shell.press_ctrl_c()
            elif line:
                shell.type(line.replace(CHECKOUT, str(Path(sys.executable).parents[1])))
            printed = [shell.read_until(re.escape(bare(logged)))[-1] for logged in quoted] if block.use else []
            if line not in (DAEMON, ""):
                *rest, status = shell.read_until(r"--\d+--")
                printed = printed or rest
                self._compare(f"{block.page.name}:{block.line}: {line}", quoted, printed, status)

    def _compare(self, where: str, quoted: list[str], printed: list[str], status: str) -> None:
        said, came = ("\n".join(bare(line) for line in lines) for lines in (quoted, printed))
        fails = where.endswith(COMPLAINS) or "error[" in said
        assert (said, fails) == (came, status != "--0--"), "\n".join([where, *printed, status])


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Return what is typed in a ``console`` block, each with the lines below it; "" for lines that nothing precedes."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ ") or line == CTRL_C:
            found.append((line.removeprefix("$ "), []))
        elif not line.startswith("# "):
            if not found:
                found.append(("", []))
            found[-1][1].append(line)
    return found


def bare(text: str) -> str:
    """Return *text* without what varies from run to run."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return text.rstrip()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    shells = {"": Shell(tmp_path), "daemon": Shell(tmp_path)}
    try:
        yield Reader(tmp_path, shells)
    finally:
        for shell in shells.values():
            shell.end()


def test_tutorial_goes_as_it_says(reader: Reader) -> None:
    for block in PAGE.blocks:
        reader.do(block)


def test_every_block_is_typed_or_is_a_file_that_the_prose_names() -> None:
    prose = PAGE.prose.splitlines()
    unnamed = [
        block.line
        for block in PAGE.blocks
        if block.language != "console" and f"`{block.use}`" not in "\n".join(prose[block.line - 5 : block.line])
    ]
    assert unnamed == []
