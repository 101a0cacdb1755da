"""A document's bytes to plain values: strict JSON, or a YAML that can say no more than JSON can.

There is exactly one reading of the bytes, or none. Refused are duplicate keys, keys that are not text, NaN, infinity
and numbers beyond 64 bits, half surrogate pairs, and what is nested too deeply or holds too many values; in YAML also
anchors, aliases, tags, merge keys and a second document. Instants stay text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from oneiric.errors import ManifestError

DEPTH: Final = 32
JSON_VALUES: Final = 4_000_000
_SHOWN: Final = 80  # characters of somebody's text that a message repeats

_IS_JSON: Final = re.compile(r"[ \t\r\n]*[{\[]")
_GAP: Final = re.compile(r"[ \t\r\n,:]*")
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")


class _DuplicateKeyError(ValueError):
    pass


class _UnusableNumberError(ValueError):
    pass


def read_document(content: bytes) -> dict[str, Any]:
    """Return the mapping that *content* is, as plain values; its size is the caller's to check.

    Raises ManifestError, which says in which line, when it is anything else.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"not UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from None
    if _IS_JSON.match(text):
        value = read_json(text)
    else:
        from oneiric.core.yaml_document import read_yaml

        value = read_yaml(text)
    if not isinstance(value, dict):
        raise ManifestError("the document is not a mapping", hint="source: ..., entries: [...]")
    return value


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
    except _DuplicateKeyError:
        line, key = _first_duplicate(text, _after_gap(text, 0))
        raise ManifestError(f"line {line}: duplicate key {quoted(key)}", hint="keep one of them") from None
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
        raise _DuplicateKeyError
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _UnusableNumberError(f"{name} is not a number that JSON knows")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_mapping, parse_constant=_refuse_constant, parse_float=finite, parse_int=whole
)


def _first_duplicate(text: str, start: int) -> tuple[int, str]:
    """Return the line of the first key that its mapping has already, and the key, below what begins at *start*."""
    seen: set[str] = set()
    position = start + 1
    while True:
        position = _after_gap(text, position)
        if text[start] == "{":
            key, end = _DECODER.raw_decode(text, position)
            if key in seen:
                return text.count("\n", 0, position) + 1, key
            seen.add(key)
            position = _after_gap(text, end)
        try:
            _, position = _DECODER.raw_decode(text, position)
        except _DuplicateKeyError:
            return _first_duplicate(text, position)


def _after_gap(text: str, position: int) -> int:
    found = _GAP.match(text, position)
    return found.end() if found else position


def _refuse_half_pairs(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ManifestError("a text holds half a surrogate pair", hint="write the character itself") from None
