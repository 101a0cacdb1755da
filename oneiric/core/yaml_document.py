"""YAML that can say no more than JSON can, read from libyaml's events: nothing is built before it is known to be plain.

Unquoted words mean what PyYAML's ``safe_load`` takes them for, so that who signs what ``safe_load`` gives signs what we
verify; except that an instant stays text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NoReturn

from oneiric.core.json_document import DEPTH, finite, quoted, too_deep, whole
from oneiric.errors import ManifestError

YAML_VALUES: Final = 200_000
_LONG: Final = 1_000  # characters of a word that is no number worth reading
_NUMERIC: Final = "0123456789abcdefABCDEFx+-._:"


def read_yaml(text: str) -> Any:
    """Return what a YAML *text* says, None when it says nothing; raises ManifestError where it is not plain."""
    import yaml

    try:
        return _Reading(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = [getattr(error, name, None) for name in ("problem", "context", "reason")]
        what = " ".join(filter(None, words)) or "unreadable"
        where = f"line {mark.line + 1}: " if mark else ""
        hint = "look for a quote, bracket or colon that is missing, or a tab"
        raise ManifestError(f"{where}not valid YAML: {what}", hint=hint) from None


class _Reading:
    """One pass over the events of a text; its recursion is bounded by the depth we accept."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._words = _Words()
        self._values = 0

    def document(self) -> Any:
        next(self._events)  # the stream starts
        if _kind(next(self._events)) == "StreamEnd":
            return None
        value = self._value(next(self._events), 0)
        next(self._events)  # the document ends
        following = next(self._events)
        if _kind(following) != "StreamEnd":
            _refuse(following, "a second document starts here", "publish one document")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        self._values += 1
        if self._values > YAML_VALUES:
            _refuse(event, f"more than {YAML_VALUES:,} values", "oneiric manifest pack, for JSON may hold more")
        _refuse_decoration(event)
        match _kind(event):
            case "Scalar":
                return self._words.meaning(event) if event.implicit[0] else event.value
            case _ if depth == DEPTH:
                raise too_deep()
            case "MappingStart":
                return self._mapping(depth + 1)
            case _:
                return self._sequence(depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        while _kind(event := next(self._events)) != "MappingEnd":
            key = self._value(event, depth)
            if not isinstance(key, str):
                _refuse(event, "the key is not text", "quote it")
            if key == "<<" and event.implicit[0]:
                _refuse(event, "merge keys (<<) are not supported", "write out what it would merge")
            if key in value:
                _refuse(event, f"duplicate key {quoted(key)}", "keep one of them")
            value[key] = self._value(next(self._events), depth)
        return value

    def _sequence(self, depth: int) -> list[Any]:
        value: list[Any] = []
        while _kind(event := next(self._events)) != "SequenceEnd":
            value.append(self._value(event, depth))
        return value


class _Words:
    """What unquoted words mean: PyYAML's own rules and constructors, of which each word is put to them once."""

    def __init__(self) -> None:
        import yaml

        self._loader: Any = yaml.SafeLoader("")
        self._node = yaml.ScalarNode
        self._known: dict[str, Any] = {}

    def meaning(self, event: Any) -> Any:
        word = event.value
        if word not in self._known:
            self._known[word] = self._meaning(word, event)
        return self._known[word]

    def _meaning(self, word: str, event: Any) -> Any:
        if len(word) > _LONG and word.strip(_NUMERIC):
            return word
        try:
            return self._value(word)
        except (ValueError, OverflowError):
            what = f"the number {quoted(word)} is not finite, or does not fit 64 bits"
            _refuse(event, what, "quote it if it is text")

    def _value(self, word: str) -> Any:
        if len(word) > _LONG:
            raise OverflowError
        tag = self._loader.resolve(self._node, word, (True, False)).rpartition(":")[2]
        node = self._node(tag, word)
        match tag:
            case "null":
                return None
            case "bool":
                return self._loader.construct_yaml_bool(node)
            case "int":
                return whole(str(self._loader.construct_yaml_int(node)))
            case "float":
                return finite(str(self._loader.construct_yaml_float(node)))
        return word


def _refuse_decoration(event: Any) -> None:
    # What follows the sign is not repeated: it may be a password that somebody forgot to quote.
    is_alias = _kind(event) == "Alias"
    for found, what, sign in (
        (is_alias, "aliases", "*"),
        (not is_alias and event.anchor is not None, "anchors", "&"),
        (not is_alias and event.tag is not None, "tags", "!"),
    ):
        if found:
            _refuse(event, f"{what} are not supported", f"quote text that begins with {sign}")


def _refuse(event: Any, what: str, hint: str) -> NoReturn:
    raise ManifestError(f"line {event.start_mark.line + 1}: {what}", hint=hint)


def _kind(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")
