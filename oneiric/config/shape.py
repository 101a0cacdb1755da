"""Compare plain values with the settings tree, and say in words what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect as shapes

from oneiric.config.rules import RULES
from oneiric.config.source import Source, Trail, quoted, suggestion

REFUSED: Final = msgspec.UNSET  # stands for what did not fit; never leaves the loader, which raises when there is any
_AMBIGUOUS: Final = frozenset({"yes", "no", "on", "off"})
_BOUNDS: Final = (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most"))


def bare(kind: shapes.Type) -> shapes.Type:
    """Return *kind* without its description."""
    return kind.type if isinstance(kind, shapes.Metadata) else kind


def conform(value: Any, kind: shapes.Type, trail: Trail, source: Source) -> Any:
    """Return *value* as plain data of *kind*; what does not fit is noted in *source* and returned as REFUSED."""
    match bare(kind):
        case shapes.AnyType():
            return _anything(value, trail, source)
        case shapes.UnionType(types=options):  # X | None, the only union in the tree
            return None if value is None else conform(value, options[0], trail, source)
        case shapes.StructType() as struct:
            return _struct({} if value is None else value, struct, trail, source)
        case shapes.DictType(value_type=item):
            return _mapping({} if value is None else value, item, trail, source)
        case shapes.VarTupleType(item_type=item):
            return _sequence([] if value is None else value, item, trail, source)
    return _scalar(value, bare(kind), trail, source)


def trails(value: Any, kind: shapes.Type, trail: Trail = ()) -> Iterator[Trail]:
    """Iterate over the settings in *value*: what ``config show`` prints a line for."""
    match bare(kind):
        case shapes.StructType(fields=fields) if isinstance(value, dict) and not (trail and isinstance(trail[-1], int)):
            for field in fields:
                if field.name in value:
                    yield from trails(value[field.name], field.type, (*trail, field.name))
        case shapes.DictType(value_type=item) if isinstance(value, dict):
            for key, each in value.items():
                yield from trails(each, item, (*trail, key))
        case shapes.VarTupleType(item_type=shapes.StructType() as item) if isinstance(value, list):
            for index, each in enumerate(value):
                yield from trails(each, item, (*trail, index))
        case _:
            yield trail


def _struct(value: Any, kind: shapes.StructType, trail: Trail, source: Source) -> Any:
    if not isinstance(value, dict):
        return _refuse(value, "a mapping", "", trail, source)
    fields = {field.name: field for field in kind.fields}
    shaped: dict[str, Any] = {}
    for key, item in value.items():
        here = (*trail, key)
        if key not in fields:
            known = ", ".join(fields)
            source.refuse(
                here, f"unknown key {quoted(key)}{suggestion(key, fields)}", f"accepted: {known}", at_key=True
            )
            continue
        shaped[key] = conform(item, fields[key].type, here, source)
        rule = RULES.get((kind.cls, key))
        if rule is not None and shaped[key] is not REFUSED and shaped[key] is not None:
            rule(shaped[key], here, source)
    for name, field in fields.items():
        if field.required and name not in value:
            source.refuse(trail, f"lacks the key {name!r}", _words(field.type)[0])
    return shaped


def _mapping(value: Any, item: shapes.Type, trail: Trail, source: Source) -> Any:
    if not isinstance(value, dict):
        return _refuse(value, "a mapping", "", trail, source)
    return {key: conform(each, item, (*trail, key), source) for key, each in value.items()}


def _sequence(value: Any, item: shapes.Type, trail: Trail, source: Source) -> Any:
    if not isinstance(value, list | tuple):
        return _refuse(value, "a list", f"in [brackets], each {_words(item)[0]}", trail, source)
    return [conform(each, item, (*trail, index), source) for index, each in enumerate(value)]


def _anything(value: Any, trail: Trail, source: Source) -> Any:
    """Return *value*, which goes to a provider as it is, unless YAML 1.1 and 1.2 disagree about what it is."""
    if isinstance(value, dict):
        return {key: _anything(each, (*trail, key), source) for key, each in value.items()}
    if isinstance(value, list):
        return [_anything(each, (*trail, index), source) for index, each in enumerate(value)]
    written = source.written(trail)
    if isinstance(value, bool) and written.lower() in _AMBIGUOUS:
        source.refuse(trail, f"{written} may be a boolean or text", f'write {str(value).lower()} or "{written}"')
    return value


def _scalar(value: Any, kind: shapes.Type, trail: Trail, source: Source) -> Any:
    written = source.written(trail)
    if _fits(value, kind, written):
        return value
    expected, accepted = _words(kind)
    if isinstance(kind, shapes.StrType) and value is not None and written:
        accepted = f'quote it: "{written}"'
    if isinstance(kind, shapes.LiteralType) and isinstance(value, str):
        accepted = suggestion(value, map(str, kind.values)).removeprefix("; ")
    return _refuse(value, expected, accepted, trail, source)


def _fits(value: Any, kind: shapes.Type, written: str) -> bool:
    match kind:
        case shapes.BoolType():
            return isinstance(value, bool)
        case shapes.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _within(value, kind)
        case shapes.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool) and _within(value, kind)
        case shapes.LiteralType(values=choices):
            return isinstance(value, str) and value in choices
    return isinstance(value, str) and not written


def _within(value: float, kind: shapes.IntType | shapes.FloatType) -> bool:
    return (
        (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.lt is None or value < kind.lt)
        and (kind.le is None or value <= kind.le)
    )


def _words(kind: shapes.Type) -> tuple[str, str]:
    """Return what a value of *kind* is called, and its bounds."""
    match bare(kind):
        case shapes.IntType() | shapes.FloatType() as number:
            name = "a whole number" if isinstance(number, shapes.IntType) else "seconds as a number"
            bounds = [f"{word} {limit}" for at, word in _BOUNDS if (limit := getattr(number, at)) is not None]
            return name, ", ".join(bounds)
        case shapes.BoolType():
            return "true or false", ""
        case shapes.LiteralType(values=choices):
            return f"one of {', '.join(map(str, choices))}", ""
        case shapes.StructType() | shapes.DictType():
            return "a mapping", ""
    return "text", ""


def _refuse(value: Any, expected: str, accepted: str, trail: Trail, source: Source) -> Any:
    source.refuse(trail, f"expected {expected}, found {_found(value, source.written(trail), expected)}", accepted)
    return REFUSED


def _found(value: Any, written: str, expected: str) -> str:
    """Say what *value* is. What stands in place of a whole section may hold anything, secrets too: not repeated."""
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "text", dict: "a mapping"}
    if value is None:
        return "nothing"
    if isinstance(value, dict | list | tuple) or expected.startswith(("a mapping", "a list")):
        return names.get(type(value), "a list")
    if isinstance(value, bool):
        return f"the boolean {written or str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {written or value}"
    return f"{'the date' if written else 'text'} {quoted(value)}"
