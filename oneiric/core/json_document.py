"""Strict JSON to plain values, and what any strict document may hold."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, Final, NoReturn

from oneiric.errors import ManifestError

DEPTH: Final = 32
JSON_VALUES: Final = 4_000_000
_LONG: Final = 1 << 20
_LEVELS: Final = 6  # an entry of a manifest, and what it holds
_SHOWN: Final = 80  # characters of somebody's text that a message repeats

_GAP: Final = re.compile(r"[ \t\r\n,:]*")
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")


class _DuplicateKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class _UnusableNumberError(ValueError):
    pass


def read_json(text: str) -> Any:
    """Return what a JSON *text* says; raises ManifestError when it is not strictly one thing."""
    if text.count(",") >= JSON_VALUES:
        raise ManifestError(f"more than {JSON_VALUES:,} values")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = f"line {error.lineno}: not valid JSON: {error.msg}"
        raise ManifestError(what, hint="what begins with { is read as JSON") from None
    except RecursionError:
        raise too_deep() from None
    except _DuplicateKeyError as error:
        where, key = _first_duplicate(text) or ("", error.key)
        raise ManifestError(f"{where}duplicate key {quoted(key)}", hint="keep one of them") from None
    except _UnusableNumberError as error:
        raise ManifestError(str(error), hint="write it as text") from None
    if nesting(value) > DEPTH:
        raise too_deep()
    if _HALF_PAIR.search(text):
        _refuse_half_pairs(value)
    return value


def nesting(value: Any) -> int:
    """Return how many mappings and lists stand inside one another in *value*."""
    depth, level = 0, [value] if isinstance(value, dict | list) else []
    while level and depth <= DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return depth


def whole(text: str) -> int:
    """Return the integer that *text* spells; raises ValueError when it does not fit 64 bits."""
    value = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise _UnusableNumberError(f"the number {quoted(text)} does not fit 64 bits")
    return value


def finite(text: str) -> float:
    """Return the number that *text* spells; raises ValueError when it is infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise _UnusableNumberError(f"the number {quoted(text)} is not finite")
    return value


def too_deep() -> ManifestError:
    """Return the error for a document that is nested too deeply."""
    return ManifestError(f"nested more than {DEPTH} levels deep")


def quoted(text: str) -> str:
    """Return *text* as a message repeats it: in quotes, and cut."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((key, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise _DuplicateKeyError(key)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _UnusableNumberError(f"{name} is not a number that JSON knows")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_mapping, parse_constant=_refuse_constant, parse_float=finite, parse_int=whole
)


def _first_duplicate(text: str) -> tuple[str, str] | None:
    """Return the line of the first key that its mapping has already, and the key; None if it is not worth the search.

    Each level that it lies below means reading what stands before it once more, so of a long text few are tried.
    """
    start = _after_gap(text, 0)
    for _ in range(DEPTH if len(text) < _LONG else _LEVELS):
        start, key = _look_into(text, start)
        if key is not None:
            return f"line {text.count(chr(10), 0, start) + 1}: ", key
    return None


def _look_into(text: str, start: int) -> tuple[int, str | None]:
    """Return where, in what begins at *start*, a key is there again, and the key; or else which value to look into."""
    seen: set[str] = set()
    position = start + 1
    while True:
        position = _after_gap(text, position)
        if text[start] == "{":
            key, end = _DECODER.raw_decode(text, position)
            if key in seen:
                return position, key
            seen.add(key)
            position = _after_gap(text, end)
        try:
            _, position = _DECODER.raw_decode(text, position)
        except _DuplicateKeyError:
            return position, None


def _after_gap(text: str, position: int) -> int:
    found = _GAP.match(text, position)
    return found.end() if found else position


def _refuse_half_pairs(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ManifestError("a text holds half a surrogate pair", hint="write the character itself") from None
