"""LogQL over JSON lines: the subset that the runbook, the dashboards and the documents use, as Loki answers it.

A query is parsed whole before a line is looked at; whatever is not known here is a ``LogQLError``, never a silent pass.
"""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

STREAM: Final = {"app": "oneiric", "instance": "here"}
"""The labels of the stream that lines are in unless a test says otherwise; they are no fields of the lines."""
SERIES: Final = 500
"""How many series Loki lets a query have."""
ERROR: Final = "__error__"


class LogQLError(ValueError):
    """A query that Loki would refuse, or that asks for what is not known here."""


class Found:
    """A line that was found: as it was ``written``, as it reads now, and the labels it has by now."""

    def __init__(self, written: str, stream: Mapping[str, str]) -> None:
        self.written = self.text = written
        self.stream = stream
        self.labels = dict(stream)

    def written_at(self) -> datetime:
        """Return when the line was written."""
        return datetime.fromisoformat(json.loads(self.written)["timestamp"])


Stage = Callable[[Found], bool]
"""Changes a line, and says whether it stays."""
Series = dict[tuple[tuple[str, str], ...], float]
"""Values by sorted labels."""
_Item = TypeVar("_Item")


class Selection(NamedTuple):
    """A query that finds lines."""

    matchers: tuple[Stage, ...]
    stages: tuple[Stage, ...]

    def select(self, lines: Iterable[str], stream: Mapping[str, str]) -> list[Found]:
        """Return the lines that are found, in their order."""
        if not all(matches(Found("", stream)) for matches in self.matchers):
            return []
        found = (Found(text, stream) for text in lines)
        return [line for line in found if all(stage(line) for stage in self.stages)]


class Metric(NamedTuple):
    """A query that counts lines in a window, or their rate; ``by`` names the labels that a sum keeps."""

    selection: Selection
    window: timedelta
    per_second: bool
    by: tuple[str, ...] | None = None

    def measure(self, lines: Iterable[str], at: datetime, stream: Mapping[str, str]) -> Series:
        """Return the values at *at*. A line with an error, and too many series, make Loki refuse the whole query."""
        counts = Counter[tuple[tuple[str, str], ...]]()
        for line in self.selection.select(lines, stream):
            if at - self.window < line.written_at() <= at:
                if ERROR in line.labels:
                    raise LogQLError(f"pipeline error: {line.labels[ERROR]}: {line.written}")
                kept = line.labels if self.by is None else self.by
                counts[tuple(sorted((name, line.labels[name]) for name in kept if name in line.labels))] += 1
        if len(counts) > SERIES:
            raise LogQLError(f"{len(counts)} series, more than the {SERIES} of a query; sum by some labels")
        unit = 1 / self.window.total_seconds() if self.per_second else 1.0
        return {labels: count * unit for labels, count in counts.items()}


def parse(query: str) -> Selection | Metric:
    """Return what *query* says; raises LogQLError for what is not LogQL, or not known here."""
    return _Parser(query).whole()


def select(query: str, lines: Iterable[str], stream: Mapping[str, str] = STREAM) -> list[Found]:
    """Return the lines that *query* finds."""
    parsed = parse(query)
    if isinstance(parsed, Metric):
        raise LogQLError(f"finds no lines but numbers: {query}")
    return parsed.select(lines, stream)


def measure(query: str, lines: Iterable[str], at: datetime, stream: Mapping[str, str] = STREAM) -> Series:
    """Return what *query* counts at *at*."""
    parsed = parse(query)
    if isinstance(parsed, Selection):
        raise LogQLError(f"finds lines and no numbers: {query}")
    return parsed.measure(lines, at, stream)


# Stages

_MATCHES: Final = ("=", "!=", "=~", "!~")
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FIELD: Final = re.compile(r"\{\{\s*\.([a-zA-Z_]\w*)\s*\}\}")


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression; what RE2 has no notion of is refused, though Python knows it."""
    if re.search(r"\(\?(<?[=!]|P=|>)|\\[1-9]|[*+?}]\+", text):
        raise LogQLError(f"RE2 has no lookaround, back reference or possessive repetition: {text}")
    try:
        return re.compile(text)
    except re.error as error:
        raise LogQLError(f"no regular expression: {text}: {error}") from error


def _label_match(name: str, sign: str, value: str) -> Stage:
    """Compare a label as text, patterns anchored; one that is missing counts as empty."""
    if sign in ("=", "!="):
        return lambda line: (line.labels.get(name, "") == value) == (sign == "=")
    pattern = _pattern(value)
    return lambda line: (pattern.fullmatch(line.labels.get(name, "")) is not None) == (sign == "=~")


def _label_number(name: str, sign: str, value: float) -> Stage:
    """Compare a label as a number: a line without it goes; one where it is no number stays, and carries an error."""

    def stage(line: Found) -> bool:
        text = line.labels.get(name)
        if text is not None and not _NUMBER.fullmatch(text):
            line.labels.setdefault(ERROR, "LabelFilterErr")
            return True
        return text is not None and _COMPARISONS[sign](float(text), value)

    return stage


def _line_filter(sign: str, value: str) -> Stage:
    """Look for something anywhere in the line."""
    if sign in ("|=", "!="):
        return lambda line: (value in line.text) == (sign == "|=")
    pattern = _pattern(value)
    return lambda line: (pattern.search(line.text) is not None) == (sign == "|~")


def _json(line: Found) -> bool:
    """Make labels of the fields; objects are flattened, lists and null left out."""
    try:
        document = json.loads(line.text, parse_int=str, parse_float=str)
    except ValueError:
        document = None
    if isinstance(document, dict):
        _extract(line, document, "")
    else:
        line.labels.setdefault(ERROR, "JSONParserErr")
    return True


def _extract(line: Found, document: Mapping[str, Any], prefix: str) -> None:
    for key, value in document.items():
        name = prefix + re.sub(r"[^a-zA-Z0-9_]", "_", key)
        if isinstance(value, dict):
            _extract(line, value, f"{name}_")
        elif isinstance(value, str | bool):
            text = value if isinstance(value, str) else str(value).lower()
            line.labels[f"{name}_extracted" if name in line.stream else name] = text


def _line_format(template: str) -> Stage:
    """Make the line anew; a field that is missing renders as nothing."""
    if "{{" in _FIELD.sub("", template):
        raise LogQLError(f"line_format: only fields are known here: {template}")

    def stage(line: Found) -> bool:
        line.text = _FIELD.sub(lambda found: line.labels.get(found[1], ""), template)
        return True

    return stage


# Syntax

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<duration>\d+(?:ms|[smhdw])(?![\w.]))
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<name>[a-zA-Z_]\w*)
    |(?P<sign>\|=|\|~|!=|!~|=~|==|>=|<=|[=<>|{}()\[\],])
    |(?P<unknown>.)""",
    re.VERBOSE,
)
_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


class _Parser:
    """Descends from the whole to its parts, each method past what it parsed."""

    def __init__(self, query: str) -> None:
        self._query = query
        found = [(str(found.lastgroup), found[0], found.start() + 1) for found in _TOKEN.finditer(query)]
        self._rest = [token for token in found if token[0] != "space"] + [("end", "", len(query) + 1)]

    def whole(self) -> Selection | Metric:
        parsed = self._selection() if self._is("{") else self._metric()
        self._take(kind="end")
        return parsed

    def _metric(self) -> Metric:
        if self._is("sum"):
            self._take()
            before = self._names()
            self._take("(")
            inner = self._metric()
            self._take(")")
            if inner.by is not None:
                raise self._wrong("a sum of sums is not known here")
            return inner._replace(by=before or self._names())
        per_second = self._take("count_over_time", "rate") == "rate"
        self._take("(")
        selection = self._selection()
        self._take("[")
        amount, unit = re.findall(r"\d+|\D+", self._take(kind="duration"))
        self._take("]")
        self._take(")")
        return Metric(selection, timedelta(**{_UNITS[unit]: int(amount)}), per_second)

    def _names(self) -> tuple[str, ...]:
        """Parse ``by (a, b)``, if that comes."""
        if not self._is("by"):
            return ()
        self._take()
        self._take("(")
        return self._listed(lambda: self._take(kind="name"), ")")

    def _selection(self) -> Selection:
        self._take("{")
        matchers = self._listed(lambda: _label_match(self._take(kind="name"), self._take(*_MATCHES), self._text()), "}")
        stages = list[Stage]()
        while self._is("|", "|=", "|~", "!=", "!~"):
            stages.append(self._stage())
        return Selection(matchers, tuple(stages))

    def _stage(self) -> Stage:
        sign = self._take()
        if sign != "|":
            return _line_filter(sign, self._text())
        name = self._take(kind="name")
        if name == "line_format":
            return _line_format(self._text())
        if name == "json":
            return _json
        sign = self._take(*_MATCHES, *_COMPARISONS)
        if sign in _COMPARISONS and (sign not in _MATCHES or self._rest[0][0] != "string"):
            return _label_number(name, sign, float(self._take(kind="number")))
        return _label_match(name, sign, self._text())

    def _text(self) -> str:
        text = self._take(kind="string")
        return text[1:-1] if text.startswith("`") else re.sub(r"\\(.)", self._escaped, text[1:-1])

    def _escaped(self, found: re.Match[str]) -> str:
        if found[1] not in _ESCAPES:
            raise self._wrong(f"{found[0]} is no escape; write patterns in `backticks`")
        return _ESCAPES[found[1]]

    def _listed(self, parse_one: Callable[[], _Item], end: str) -> tuple[_Item, ...]:
        items = [parse_one()]
        while self._take(",", end) == ",":
            items.append(parse_one())
        return tuple(items)

    def _is(self, *texts: str) -> bool:
        return self._rest[0][1] in texts

    def _take(self, *texts: str, kind: str = "") -> str:
        found, text, _ = self._rest[0]
        if (texts and text not in texts) or (kind and found != kind) or found == "unknown":
            raise self._wrong(f"{text!r} where {kind or ' or '.join(texts)} is known")
        del self._rest[0]
        return text

    def _wrong(self, what: str) -> LogQLError:
        return LogQLError(f"column {self._rest[0][2] if self._rest else len(self._query)}: {what}: {self._query}")
