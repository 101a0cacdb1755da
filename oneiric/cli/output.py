"""What commands print: one JSON object for programs, tables and words for people. Notes and errors go to stderr.

Whoever wrote a text (a provider, an operator's note, the daemon), it cannot move the terminal's cursor.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from oneiric.errors import OneiricError

if TYPE_CHECKING:
    from oneiric.cli.options import Options

# Controls of both kinds, line separators, and what makes text run backwards. Line feeds are told apart below.
_CONTROL: Final = r"\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE, as a shell says it
_COLORS: Final[Mapping[str, str]] = {
    "ready": "green",
    "active": "green",
    "healthy": "green",
    "success": "green",
    "failed": "red",
    "rejected": "red",
    "unhealthy": "red",
    "rollback": "yellow",
    "paused": "yellow",
    "draining": "yellow",
    "swapping": "yellow",
}


class OutputError(OneiricError):
    """The command did what was asked, and its answer could not be written."""

    code = "output"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"done, but the answer could not be written to stdout: {reason}", hint="df -h, or write elsewhere"
        )


def print_document(document: Mapping[str, Any], options: Options, render: Callable[[Any], str]) -> None:
    """Print *document* as JSON or, through *render*, for a person. Raises OutputError when that cannot be written."""
    print_answer(_json(document) if options.json else render(_visible(document)), options)


def print_answer(text: str, options: Options) -> None:
    """Print *text* to stdout. Raises OutputError when it cannot be written."""
    try:
        click.echo(text, color=options.color)
    except BrokenPipeError:
        silence(sys.stdout)
        raise click.exceptions.Exit(BROKEN_PIPE) from None  # who reads has seen enough, which needs no words
    except OSError as error:
        silence(sys.stdout)
        raise OutputError(error.strerror or str(error)) from error


def print_error(error: OneiricError, options: Options) -> None:
    """Print what went wrong and what to do about it; with ``--json`` on stdout too, for the program that reads it."""
    explanation = getattr(error, "explanation", "")
    note(error.render() + (f"\n\n{explanation}" if explanation else ""), options)
    if options.json:
        row = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        with suppress(OutputError, click.exceptions.Exit):
            print_answer(_json({"schema": "oneiric.error/1", "error": {**row, "explanation": explanation}}), options)


def note(text: str, options: Options) -> None:
    """Print a remark to stderr; that nobody can read it is no reason to fail."""
    try:
        click.echo(_visible(text), err=True, color=options.color)
    except OSError:
        silence(sys.stderr)


def warn(texts: Iterable[str], options: Options) -> None:
    """Print warnings to stderr."""
    for text in texts:
        note(f"warning: {text}", options)


def silence(stream: TextIO) -> None:
    """Lead *stream* nowhere: what it still holds would fail again, and be complained about, at the exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return *rows* in columns as wide as they need, the last one unbounded; words that tell a state are coloured."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = ["  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True)).rstrip()]
    for row in cells:
        padded = [_colored(cell) + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def safe(value: Any) -> str:
    """Return *value* as one line of text that does nothing but show."""
    return _escape(str(value), rf"[{_CONTROL}\n]")


def _json(document: Mapping[str, Any]) -> str:
    import json

    return json.dumps(document)


def _visible(value: Any) -> Any:
    """Return *value* with every text in it as text that does nothing but show, in as many lines as it has."""
    if isinstance(value, str):
        return _escape(value, rf"[{_CONTROL}]")
    if isinstance(value, dict):
        return {_visible(name): _visible(item) for name, item in value.items()}
    return [_visible(item) for item in value] if isinstance(value, list) else value


def _escape(text: str, pattern: str) -> str:
    if text.isprintable():  # nearly all is, and the pattern need not be compiled
        return text
    return re.sub(pattern, lambda found: found[0].encode("unicode_escape").decode(), text)


def _colored(cell: str) -> str:
    color = _COLORS.get(cell.partition(",")[0])
    return click.style(cell, fg=color) if color else cell
