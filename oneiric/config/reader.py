"""Settings text to plain values, each with its place, by a YAML without YAML's surprises.

Accepted is what JSON can say, in YAML's spelling: mappings with text as keys, lists, text, numbers, booleans and null.
No anchors, aliases, tags, merge keys or second document; nothing becomes a date, and ``010`` and ``1:30`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from oneiric.config.source import Place, Position, Source, Trail, quoted

LIMIT_BYTES: Final = 1 << 20
_DEPTH: Final = 32
_VALUES: Final = 50_000
_UNKNOWN: Final = "?"  # stands in a trail for a key that is none

# Compiled when they are first used: most commands read no settings.
_INTEGER: Final = r"[-+]?(0|[1-9][0-9]*)"
_FLOAT: Final = r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"
_ENDLESS: Final = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_DATE: Final = r"(?a:[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt\s].*)?)"
_BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_UNUSABLE: Final = "[\0\ud800-\udfff]"
_UNPRINTABLE: Final = "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"


class _Unreadable(Exception):  # noqa: N818 - reading on makes no sense, and why is noted already
    pass


def decode(content: bytes, source: Source) -> str | None:
    """Return *content* as text, or None after noting why it is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source.refuse((), f"is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}", "text, saved as UTF-8")
        return None
    found = re.search(_UNPRINTABLE, text)
    if found is None:
        return text
    what = f"holds the control character U+{ord(found[0]):04X}"
    source.refuse_at(_place(text, found.start()), what, "printable text")
    return None


def parse(text: str, source: Source) -> Any:
    """Return what *text* says, None when it says nothing; whatever is wrong with it is noted in *source*."""
    import yaml

    try:
        return _Reading(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), source).document()
    except _Unreadable:
        return None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = [getattr(error, name, None) for name in ("problem", "context")]
        what = " ".join(filter(None, words)) or str(error)
        position = None
        if mark:  # at the end of the text libyaml names a line that is not there
            position = _place(text, len(text)) if mark.index >= len(text) else (mark.line + 1, mark.column + 1)
        source.refuse_at(
            position, f"not valid YAML: {what}", "look for a quote, bracket or colon that is missing, or a tab"
        )
        return None


class _Reading:
    """One pass over the events of a text; its recursion is bounded by the depth we accept."""

    def __init__(self, events: Iterator[Any], source: Source) -> None:
        self._events = events
        self._source = source
        self._values = 0

    def document(self) -> Any:
        next(self._events)  # the stream starts
        if _kind(next(self._events)) == "StreamEnd":
            return None
        value = self._value(next(self._events), ())
        next(self._events)  # the document ends
        following = next(self._events)
        if _kind(following) != "StreamEnd":
            self._source.refuse_at(_position(following), "a second document starts here", "one document")
        return value

    def _value(self, event: Any, trail: Trail, key: Position | None = None) -> Any:
        self._refuse_excess(event, trail)
        self._refuse_decoration(event)
        position = _position(event)
        self._source.places[trail] = Place(key or position, position)
        match _kind(event):
            case "MappingStart":
                return self._mapping(trail)
            case "SequenceStart":
                return self._sequence(trail)
            case "Scalar" if event.implicit[0]:
                return self._plain(event.value, trail)
            case "Scalar":
                return self._text(event.value, trail)

    def _mapping(self, trail: Trail) -> dict[str, Any]:
        value: dict[str, Any] = {}
        while _kind(event := next(self._events)) != "MappingEnd":
            position = _position(event)
            key = self._key(event, trail)
            if key in value:
                line, column = self._source.places[*trail, key].key
                self._source.refuse_at(
                    position, f"duplicate key {quoted(key)}", f"it stands first at line {line}:{column}"
                )
            item = self._value(next(self._events), (*trail, _UNKNOWN if key is None else key), position)
            if key is not None:
                value[key] = item
        return value

    def _key(self, event: Any, trail: Trail) -> str | None:
        """Return the key that *event* begins, or None after noting why it cannot be one."""
        key = self._value(event, (*trail, _UNKNOWN))
        if isinstance(key, str) and not (key == "<<" and event.implicit[0]):
            return key
        what, accepted = "the key is not text", "text, in quotes where YAML takes it for something else"
        if key == "<<":
            what, accepted = "merge keys (<<) are not supported", "write out what it would merge"
        self._source.refuse_at(_position(event), what, accepted)
        return None

    def _sequence(self, trail: Trail) -> list[Any]:
        value: list[Any] = []
        while _kind(event := next(self._events)) != "SequenceEnd":
            value.append(self._value(event, (*trail, len(value))))
        return value

    def _plain(self, text: str, trail: Trail) -> Any:
        """Return what an unquoted *text* stands for."""
        value = _meaning(text)
        if value is not text or re.fullmatch(_DATE, text):
            self._source.places[trail] = self._source.places[trail]._replace(written=text or "null")
        if re.fullmatch(_ENDLESS, text) or value in (float("inf"), float("-inf")):
            self._source.refuse(trail, "is not finite, or too large a number", "quote it if it is text")
        return self._text(text, trail) if value is text else value

    def _text(self, text: str, trail: Trail) -> str:
        if re.search(_UNUSABLE, text):
            self._source.refuse(trail, "holds a NUL or half a surrogate pair", "printable text")
        return text

    def _refuse_excess(self, event: Any, trail: Trail) -> None:
        self._values += 1
        for exceeded, what in (
            (len(trail) > _DEPTH, f"nested more than {_DEPTH} levels deep"),
            (self._values > _VALUES, f"more than {_VALUES:,} values"),
        ):
            if exceeded:
                self._source.refuse_at(_position(event), what, "settings are smaller than this")
                raise _Unreadable

    def _refuse_decoration(self, event: Any) -> None:
        # What follows the sign is not repeated: it may be a password that somebody forgot to quote.
        is_alias = _kind(event) == "Alias"
        for found, what, sign in (
            (is_alias, "aliases", "*"),
            (not is_alias and event.anchor is not None, "anchors", "&"),
            (not is_alias and event.tag is not None, "tags", "!"),
        ):
            if found:
                self._source.refuse_at(
                    _position(event), f"{what} are not supported", f"quote text that begins with {sign}"
                )


def _meaning(text: str) -> Any:
    if text in _NULLS:
        return None
    if text.lower() in _BOOLEANS and (text in (text.lower(), text.upper(), text.capitalize())):
        return _BOOLEANS[text.lower()]
    if re.fullmatch(_INTEGER, text):
        return int(text) if len(text) <= 20 else float("inf")  # all that fits 64 bits does
    if re.fullmatch(_FLOAT, text):
        return float(text)
    return text


def _place(text: str, index: int) -> Position:
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


def _position(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
