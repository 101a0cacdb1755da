"""Words of the code as Markdown: prose with its code marked, tables, and what a JSON Schema accepts."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any, Final

from oneiric.cli.main import COMMANDS

ORIGIN: Final = "<!-- Written by `make reference` from the code. -->"

# What is code without being marked as such: options, references to secrets, variables, settings, comparisons, paths.
_CODE: Final = re.compile(
    rf"(?<![\w`.-])(?:eval \"\$\([^)]*\)\""
    rf"|oneiric (?:{'|'.join(COMMANDS)})(?: (?:KEY|[A-Z]\b|--[a-z-]+|(?:check|list|sign)\b))*"
    r"|--[a-z][\w-]*|-[a-z]\b|\$?\$\{[^}]*\}|ONEIRIC_\w+|[<>=]=\d+(?:\.\d+)*|/[a-z]+|[a-z]+\*\*\d+"
    r"|(?:api|cache|lifecycle|logging|metrics|plugins|remote|watch)\.[a-z]\w+|(?:package\.)?module:attribute"
    r"|[a-z]+\+https?|[a-z]+_[a-z_]+)(?![\w`-])"
)
_SPAN: Final = re.compile(r"(`[^`]+`)")
_BOUNDS: Final = (
    ("exclusiveMinimum", "more than"),
    ("minimum", "at least"),
    ("exclusiveMaximum", "less than"),
    ("maximum", "at most"),
)
Schema = Mapping[str, Any]


def code(text: str) -> str:
    """Return *text* as code, also within a table."""
    return f"`{text}`".replace("|", "\\|")


def prose(text: str) -> str:
    """Return one paragraph of a docstring or a help text, in one line, as Markdown."""
    line = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split())).replace("``", "`")
    parts = _SPAN.split(line)
    return "".join(part if index % 2 else _marked(part) for index, part in enumerate(parts))


def paragraphs(docstring: str | None) -> Iterator[str]:
    """Yield the paragraphs of *docstring* as Markdown; its ``Args:`` and ``Raises:`` become lists."""
    for block in cleandoc(docstring or "").split("\n\n"):
        head, _, rest = block.partition("\n")
        if re.fullmatch(r"[A-Z]\w+:", head) and rest:
            items = re.split(r"\n(?! )", cleandoc(rest))
            yield "\n".join([head, "", *(wrapped(f"- {_item(item)}") for item in items)])
        elif block.lstrip().startswith("- "):
            yield "\n".join(wrapped(f"- {prose(item[2:])}") for item in re.split(r"\n(?=- )", block))
        else:
            yield wrapped(prose(block))


def wrapped(text: str) -> str:
    """Return a paragraph or an item of a list in lines of at most 120 characters."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; each cell is Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def value_of(schema: Schema, link: Callable[[str], str] = code) -> str:
    """Say in words what *schema* accepts; *link* words the name of a type that has a place of its own."""
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(value_of(one, link) for one in schema["anyOf"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(value_of({**schema, "type": one}, link) for one in kind)
    return _of_type(str(kind), schema, link)


def default_of(schema: Schema) -> str:
    """Return the default of *schema* as code, "" when there is none that says anything."""
    value = schema.get("default")
    if value is None or value == "" or (isinstance(value, list | tuple | dict) and not value):
        return ""
    return code(f"{value:.12g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value))


def _of_type(kind: str, schema: Schema, link: Callable[[str], str]) -> str:
    bounds = [f"{words} {_figure(schema[name])}" for name, words in _BOUNDS if name in schema]
    if "maxLength" in schema:
        bounds.append(f"at most {schema['maxLength']:,} characters")
    if "format" in schema and kind == "string":
        bounds.append("an instant")
    match kind:
        case "array":
            most = [f"at most {schema['maxItems']}"] if "maxItems" in schema else []
            return ", ".join([f"list of {value_of(schema.get('items') or {}, link)}", *most])
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"mapping of {value_of(schema['additionalProperties'], link)}"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "null",
        "object": "mapping",
    }
    return ", ".join([words.get(kind, "anything"), *([] if kind == "null" else bounds)])


def _figure(number: float) -> str:
    """Return *number*; the bounds of integers that every reader of JSON agrees about by their names."""
    names = {1 << 53: "2^53", (1 << 53) - 1: "2^53 - 1", -(1 << 53): "-2^53"}
    return names.get(int(number), f"{number:,}")


def _item(text: str) -> str:
    name, _, says = text.partition(":")
    return f"{code(name.strip())}: {prose(says)}"


def _marked(text: str) -> str:
    pieces: list[str] = []
    end = 0
    for found in _CODE.finditer(text):
        pieces += [_escaped(text[end : found.start()]), code(found[0])]
        end = found.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    """Return *text* so that nothing in it is markup, but the emphasis of a parameter's name."""
    shown = re.sub(r"(?<!\w)\*(\w+)\*(?!\w)", r"_\1_", text)
    return re.sub(r"([|<*\[\]])", r"\\\1", shown)
