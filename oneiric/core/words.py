"""Numbers, and kinds of values, as words of a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_FOUND: Final[Mapping[str, str]] = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a decimal number",
    "str": "text",
    "dict": "a mapping",
    "object": "a mapping",
    "list": "a list",
    "array": "a list",
    "null": "nothing",
}
_EXPECTED: Final[Mapping[str, str]] = {
    **_FOUND,
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}
_BOUNDS: Final[Mapping[str, str]] = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most"}
# What msgspec says of a value that does not fit; compiled when it is needed, which it is not at most starts.
_MISFIT: Final = r"Expected `(\w+)(?: \| null)?`(?:, got `(\w+)`| ([<>]=?) (-?\d+)(?:\.0)?)"
_MISSING: Final = r"Object missing required field `(\w+)`"


def plural(number: int, noun: str, many: str = "") -> str:
    """Return *number* of *noun*; *many* is its plural, where that is not made with an s."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def misfit(expected: type, found: Any) -> str:
    """Say that a value of one kind stands where one of another belongs."""
    return f"expected {_EXPECTED[expected.__name__]}, found {_FOUND[type(found).__name__]}"


def reworded(message: str) -> str:
    """Return what msgspec says of a value that does not fit, in the words of ``misfit``."""
    import re

    if (missing := re.match(_MISSING, message)) is not None:
        return f"lacks the key {missing[1]!r}"
    found = re.match(_MISFIT, message)
    if found is None or found[1] not in _EXPECTED or (found[2] or "null") not in _FOUND:
        return f"{message[:1].lower()}{message[1:]}".replace("`", "")
    expected = f"expected {_EXPECTED[found[1]]}"
    return f"{expected}, found {_FOUND[found[2]]}" if found[2] else f"{expected}, {_BOUNDS[found[3]]} {found[4]}"
