"""The rules evaluated here, on the daemon's own metrics, for a machine without Prometheus.

A subset of PromQL, as far as our rules and drills use it; what is not in it is refused. ``rate`` and ``increase`` take
the time that the samples span and do not extrapolate to the window, so figures differ a little from Prometheus'.
"""

from __future__ import annotations

import math
import operator
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, Final, NamedTuple

from oneiric.drills.drill import Monitor
from oneiric.drills.sandbox import DrillFailedError, Sandbox
from oneiric.errors import UsageError
from oneiric.monitoring.alerts import Alert, alerts
from oneiric.monitoring.profiles import DRILL
from oneiric.monitoring.rules import recordings

_INTERVAL: Final = 1.0
_KEPT: Final = 300.0
_STALE: Final = 5.0
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ARITHMETIC: Final = {"+": operator.add, "-": operator.sub, "*": operator.mul, "^": operator.pow}
_COMPARISON: Final = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
NAME: Final = "__name__"


class Point(NamedTuple):
    """One sample: when it was scraped, and its value."""

    at: float
    value: float


class Storage:
    """The samples of the last minutes, by series."""

    def __init__(self) -> None:
        self._series: defaultdict[Labels, list[Point]] = defaultdict(list)
        self._guard = threading.Lock()

    def add(self, at: float, samples: Iterable[tuple[Labels, float]]) -> None:
        """Take in one scrape; what is too old is forgotten."""
        with self._guard:
            for labels, value in samples:
                points = self._series[labels]
                points.append(Point(at, value))
                while points[0].at < at - _KEPT:
                    points.pop(0)

    def select(self, name: str, fits: Callable[[Mapping[str, str]], bool]) -> Iterator[tuple[Labels, list[Point]]]:
        """Yield the series called *name* whose labels fit, without their name."""
        with self._guard:
            found = [(labels, list(points)) for labels, points in self._series.items() if (NAME, name) in labels]
        for labels, points in found:
            if fits(dict(labels)):
                yield labels - {(NAME, name)}, points


def parse(page: str) -> Iterator[tuple[Labels, float]]:
    """Yield the samples of a page in the Prometheus text format."""
    for line in page.splitlines():
        found = _SAMPLE.match(line)
        if found is not None:
            labels = {(name, value) for name, value in _LABEL.findall(found[2] or "")}
            yield frozenset({*labels, (NAME, found[1])}), float(found[3])


class Evaluator:
    """Evaluates expressions on a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def evaluate(self, expression: str, at: float) -> Vector | float:
        """Return what *expression* is at the time *at*; raises DrillFailedError for what is not understood."""
        return self._value(_parsed(expression), at)

    def vector(self, expression: str, at: float) -> Vector:
        """Return *expression* as a vector; a number has no labels."""
        value = self.evaluate(expression, at)
        return _as_vector(value)

    def _value(self, node: Any, at: float) -> Vector | float:
        kind = type(node).__name__
        method = getattr(self, f"_{kind.lower()}", None)
        if method is None:
            raise DrillFailedError(f"{kind} in {node} is not evaluated here", hint="install Prometheus")
        value: Vector | float = method(node, at)
        return value

    def _numberliteral(self, node: Any, _at: float) -> float:
        return float(node.val)

    def _parenexpr(self, node: Any, at: float) -> Vector | float:
        return self._value(node.expr, at)

    def _vectorselector(self, node: Any, at: float) -> Vector:
        moment = at - _seconds(node.offset)
        series = self._storage.select(node.name, _matcher(node))
        return {labels: value for labels, points in series if (value := _latest(points, moment)) is not None}

    def _aggregateexpr(self, node: Any, at: float) -> Vector:
        folds: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min, "count": len}
        fold = folds.get(str(node.op))
        if fold is None or (node.modifier is not None and not str(node.modifier).startswith("by")):
            raise DrillFailedError(f"{node} is not evaluated here", hint="install Prometheus")
        kept = set(re.findall(r"\w+", str(node.modifier)[2:])) if node.modifier is not None else set()
        groups: defaultdict[Labels, list[float]] = defaultdict(list)
        for labels, value in _as_vector(self._value(node.expr, at)).items():
            groups[frozenset(one for one in labels if one[0] in kept)].append(value)
        return {labels: float(fold(values)) for labels, values in groups.items()}

    def _call(self, node: Any, at: float) -> Vector | float:
        name, arguments = node.func.name, list(node.args)
        if name in ("rate", "increase", "deriv"):
            return self._over_time(name, arguments[0], at)
        values = [self._value(argument, at) for argument in arguments]
        if name == "time":
            return at
        if name == "vector":
            return {frozenset(): float(values[0])}  # type: ignore[arg-type]
        if name == "absent":
            return {} if _as_vector(values[0]) else {frozenset(): 1.0}
        if name in ("clamp_max", "clamp_min"):
            fold, bound = (min if name == "clamp_max" else max), float(values[1])  # type: ignore[arg-type]
            return {labels: fold(value, bound) for labels, value in _as_vector(values[0]).items()}
        if name == "histogram_quantile":
            return _quantiles(float(values[0]), _as_vector(values[1]))  # type: ignore[arg-type]
        raise DrillFailedError(f"{name}() is not evaluated here", hint="install Prometheus")

    def _over_time(self, name: str, matrix: Any, at: float) -> Vector:
        found: Vector = {}
        selector = matrix.vector_selector
        begin = at - _seconds(matrix.range)
        for labels, points in self._storage.select(selector.name, _matcher(selector)):
            window = [point for point in points if begin <= point.at <= at]
            if len(window) < 2:
                continue
            span = window[-1].at - window[0].at
            grown = sum(
                later.value - earlier.value if later.value >= earlier.value else later.value
                for earlier, later in pairwise(window)
            )
            found[labels] = grown if name == "increase" else grown / span
        return found

    def _binaryexpr(self, node: Any, at: float) -> Vector | float:
        left, right, name = self._value(node.lhs, at), self._value(node.rhs, at), str(node.op)
        on = _on(node.modifier)
        if name in ("and", "or", "unless"):
            return _set(name, _as_vector(left), _as_vector(right), on)
        if not isinstance(left, dict) and not isinstance(right, dict):
            return float(_ARITHMETIC[name](left, right)) if name in _ARITHMETIC else _divide(left, right)
        return _matched(name, left, right, on)


def _matched(name: str, left: Vector | float, right: Vector | float, on: frozenset[str] | None) -> Vector:
    """Combine each pair that matches; a comparison keeps the left value of those for which it holds."""
    found: Vector = {}
    if not isinstance(left, dict):
        pairs = [(labels, left, value) for labels, value in _as_vector(right).items()]
    elif not isinstance(right, dict):
        pairs = [(labels, value, right) for labels, value in left.items()]
    else:
        others = {_key(labels, on): value for labels, value in right.items()}
        pairs = [(labels, v, others[_key(labels, on)]) for labels, v in left.items() if _key(labels, on) in others]
    for labels, one, other in pairs:
        if name in _COMPARISON:
            if _COMPARISON[name](one, other):
                found[labels] = one if isinstance(left, dict) else other
        else:
            found[labels] = float(_ARITHMETIC[name](one, other)) if name in _ARITHMETIC else _divide(one, other)
    return found


def _set(name: str, left: Vector, right: Vector, on: frozenset[str] | None) -> Vector:
    there = {_key(labels, on) for labels in right}
    if name == "and":
        return {labels: value for labels, value in left.items() if _key(labels, on) in there}
    if name == "unless":
        return {labels: value for labels, value in left.items() if _key(labels, on) not in there}
    here = {_key(labels, on) for labels in left}
    return {**{labels: value for labels, value in right.items() if _key(labels, on) not in here}, **left}


def _key(labels: Labels, on: frozenset[str] | None) -> Labels:
    return labels if on is None else frozenset(one for one in labels if one[0] in on)


def _on(modifier: Any) -> frozenset[str] | None:
    text = "" if modifier is None else str(modifier)
    if not text.strip():
        return None
    if re.fullmatch(r"on \([\w, ]*\)", text.strip()) is None:
        raise DrillFailedError(f"{text} is not evaluated here", hint="install Prometheus")
    return frozenset(re.findall(r"\w+", text[3:]))


def _divide(one: float, other: float) -> float:
    return one / other if other else math.nan if not one else math.copysign(math.inf, one)


def _as_vector(value: Vector | float) -> Vector:
    return value if isinstance(value, dict) else {frozenset(): value}


def _latest(points: list[Point], at: float) -> float | None:
    return next((point.value for point in reversed(points) if at - _STALE <= point.at <= at), None)


def _quantiles(fraction: float, buckets: Vector) -> Vector:
    """Return the quantile of each histogram, interpolated within its bucket as Prometheus does."""
    histograms: defaultdict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        histograms[frozenset(one for one in labels if one[0] != "le")].append((bound, count))
    return {labels: _quantile(fraction, sorted(counts)) for labels, counts in histograms.items()}


def _quantile(fraction: float, counts: list[tuple[float, float]]) -> float:
    total = counts[-1][1]
    if not total:
        return math.nan
    rank, below_bound, below = fraction * total, 0.0, 0.0
    for bound, count in counts:
        if count >= rank:
            if math.isinf(bound):
                return below_bound
            return below_bound + (bound - below_bound) * (rank - below) / max(count - below, 1e-12)
        below_bound, below = bound, count
    return below_bound


def _matcher(selector: Any) -> Callable[[Mapping[str, str]], bool]:
    wanted = re.findall(r'(\w+)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"', str(selector.matchers))

    def fits(labels: Mapping[str, str]) -> bool:
        return all(_fits(labels.get(name, ""), how, value) for name, how, value in wanted)

    return fits


def _fits(value: str, how: str, wanted: str) -> bool:
    matches = value == wanted if how in ("=", "!=") else re.fullmatch(wanted, value) is not None
    return matches if how in ("=", "=~") else not matches


def _seconds(duration: Any) -> float:
    return 0.0 if duration is None else float(duration.total_seconds())


def _parsed(expression: str) -> Any:
    try:
        import promql_parser
    except ImportError as error:
        raise UsageError(
            "neither Prometheus nor promql-parser is installed, and one of them evaluates the alerts",
            hint='apt-get install prometheus prometheus-alertmanager; or pip install "oneiric[drill]"',
        ) from error
    return promql_parser.parse(expression)


class Evaluated:
    """Scrapes a daemon each second and evaluates the rules of drills on what it found."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._storage = Storage()
        self._evaluator = Evaluator(self._storage)
        self._pending: dict[tuple[str, Labels], float] = {}
        self._firing: set[str] = set()
        self._alerts = alerts(DRILL)
        self._recordings = recordings(DRILL)

    @classmethod
    @contextmanager
    def watching(cls, sandbox: Sandbox) -> Iterator[Monitor]:
        """Watch the daemon of *sandbox* meanwhile."""
        watch = cls(sandbox)
        watch._look(time.time())  # so that a missing library is said now
        over = threading.Event()

        def go() -> None:
            while not over.wait(_INTERVAL):
                watch._look(time.time())

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            over.set()
            thread.join()

    @property
    def name(self) -> str:
        """What it is."""
        return "the rules, evaluated by the drill on the daemon's own metrics"

    def query(self, expression: str) -> list[float]:
        """Return the values of *expression* now, NaN left out."""
        found = self._evaluator.vector(expression, time.time()).values()
        return [value for value in found if not math.isnan(value)]

    def is_firing(self, alert: str) -> bool:
        """Say whether *alert* fires."""
        return alert in self._firing

    def _look(self, at: float) -> None:
        """Scrape once, record, and see which alerts fire."""
        samples: list[tuple[Labels, float]] = []
        with suppress(OSError):
            job = ("job", "oneiric")
            samples = [(labels | {job}, value) for labels, value in parse(self._sandbox.metrics())]
        up = frozenset({(NAME, "up"), ("job", "oneiric")})
        self._storage.add(at, [*samples, (up, 1.0 if samples else 0.0)])
        for name, expression in self._recordings.items():
            found = self._evaluator.vector(expression, at)
            self._storage.add(at, [(labels | {(NAME, name)}, value) for labels, value in found.items()])
        self._firing = {alert.name for alert in self._alerts if self._fires(alert, at)}

    def _fires(self, alert: Alert, at: float) -> bool:
        """Say whether the condition of *alert* has held for long enough."""
        holds = set(self._evaluator.vector(alert.expression, at))
        key = f"{alert.name} {alert.labels}"
        for place in [one for one in self._pending if one[0] == key and one[1] not in holds]:
            del self._pending[place]
        wait = float(DRILL.holds.get(alert.hold, alert.hold).removesuffix("s"))
        since = [self._pending.setdefault((key, labels), at) for labels in holds]
        return any(at - begun >= wait for begun in since)
