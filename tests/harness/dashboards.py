"""A critic of Grafana dashboards: what it says is wrong with a panel, and what with its queries.

The rules are those of grafana/dashboard-linter, and ours: PromQL names only metrics, labels and values of the catalog,
LogQL only events and their fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql

from oneiric.monitoring.profiles import PROD
from oneiric.monitoring.rules import recordings
from oneiric.observability.catalog import EVENTS, METRICS

Board = Mapping[str, Any]

RECORDED = frozenset(recordings(PROD))
PROCESS = {
    "process_resident_memory_bytes": "gauge",
    "process_cpu_seconds_total": "counter",
    "process_start_time_seconds": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}
OTHERS = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity", "component"},
    **{name: {"job", "instance"} for name in PROCESS},
    **{name: set[str]() for name in RECORDED},
}
"""Labels of the metrics that are not in the catalog."""
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""
EVERY_LINE = {"timestamp", "level", "event", "logger"}
UNITS = {"none", "short", "percent", "percentunit", "ops", "s", "ms", "bytes", "Bps", "dateTimeFromNow"}
SOURCES = {"prometheus": "${datasource}", "loki": "${loki}"}
WINDOWS = {"$__rate_interval", "$__range"}
COUNTING = {"rate", "irate", "increase"}


class Target(NamedTuple):
    """One query of one panel."""

    board: str
    panel: str
    ref: str
    source: str
    expr: str
    legend: str = ""
    instant: bool = False

    @property
    def name(self) -> str:
        """Where it is."""
        return f"{self.board}: {self.panel} {self.ref}"


def read_boards(directory: Path) -> list[Board]:
    """Return the dashboards in *directory*."""
    return [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]


def panels(board: Board) -> list[Mapping[str, Any]]:
    """Return its panels, without rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(board: Board, source: str = "") -> list[Target]:
    """Return every query of a dashboard, its annotations among them, or those put to one kind of *source*."""
    found = [
        Target(
            board["uid"],
            panel["title"],
            target["refId"],
            target["datasource"]["type"],
            target["expr"],
            target.get("legendFormat", ""),
            bool(target.get("instant")),
        )
        for panel in panels(board)
        for target in panel["targets"]
    ]
    found += [
        Target(board["uid"], f"annotation {one['name']}", "A", one["datasource"]["type"], one["target"]["expr"])
        for one in board["annotations"]["list"]
    ]
    return [target for target in found if source in ("", target.source)]


def fill_in(expr: str, *, window: str, view: str) -> str:
    """Return a query with its variables replaced: ``$__rate_interval`` by *window*, ``$__range`` by *view*."""
    known = {"$__rate_interval": window, "$__range": view, "$__interval": "1s", "$instance": ".*", "$domain": ".*"}
    for name, value in known.items():
        expr = expr.replace(name, value)
    return expr


# Panels


def faults(board: Board) -> list[str]:
    """Return what is wrong with a dashboard and its panels, apart from their queries."""
    return [
        *_board_faults(board),
        *_layout_faults(board),
        *(f"{panel['title']}: {fault}" for panel in panels(board) for fault in _panel_faults(panel)),
    ]


def _board_faults(board: Board) -> Iterator[str]:
    if not re.fullmatch(r"oneiric-[a-z]+", board.get("uid", "")):
        yield "uid"
    if not board.get("title") or not board.get("description"):
        yield "title or description"
    if not re.fullmatch(r"\d+[sm]", board.get("refresh", "")):
        yield "refresh"
    if not board.get("time", {}).get("from", "").startswith("now-") or board["time"].get("to") != "now":
        yield "time range"
    if "oneiric" not in board.get("tags", ()):
        yield "tag"
    variables = {one["name"]: one for one in board["templating"]["list"]}
    for name, kind in (("datasource", "prometheus"), ("loki", "loki")):
        if (variables.get(name, {}).get("type"), variables.get(name, {}).get("query")) != ("datasource", kind):
            yield f"variable {name}"
    for what in ("id", "title"):
        values = [panel[what] for panel in board["panels"]]
        if len(set(values)) < len(values):
            yield f"the same {what} twice"


def _layout_faults(board: Board) -> Iterator[str]:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        if max(x for x, _ in cells) >= 24:
            yield f"{panel['title']}: beyond the right edge"
        if taken & cells:
            yield f"{panel['title']}: on top of another panel"
        taken |= cells


def _panel_faults(panel: Mapping[str, Any]) -> Iterator[str]:
    if len(panel.get("description", "").strip()) < 10:
        yield "description"
    if not any(re.search(r"INCIDENT_RESPONSE\.md#[a-z0-9-]+$", link["url"]) for link in panel.get("links") or ()):
        yield "link to the runbook"
    if not panel["targets"]:
        yield "no query"
    refs = [target["refId"] for target in panel["targets"]]
    if len(set(refs)) < len(refs):
        yield "the same refId twice"
    for one in (panel, *panel["targets"]):
        source = one.get("datasource") or {}
        if source.get("uid") != SOURCES.get(source.get("type", "")):
            yield "datasource"
    if panel["type"] != "logs":
        yield from _measured_faults(panel)


def _measured_faults(panel: Mapping[str, Any]) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    if defaults.get("unit") not in UNITS:
        yield f"unit {defaults.get('unit')}"
    if not all(target.get("legendFormat") for target in panel["targets"]):
        yield "legend"
    if panel["type"] != "stat" and not panel["options"]["legend"]["showLegend"]:
        yield "legend is hidden"
    steps = [step["value"] for step in defaults.get("thresholds", {}).get("steps", ())]
    if panel["type"] == "stat" and not steps:
        yield "thresholds"
    if steps and (steps[0] is not None or steps[1:] != sorted(set(steps[1:]))):
        yield "order of thresholds"


# PromQL


def promql_faults(target: Target) -> list[str]:
    """Return what is wrong with a query put to Prometheus, without asking it."""
    windows = {one or other for one, other in re.findall(r"\[([^\]]*)\]|offset ([^ )]+)", target.expr)}
    found = [f"window {window}" for window in sorted(windows - WINDOWS)]
    try:
        tree = promql.parse(fill_in(target.expr, window="1m", view="1h"))
    except ValueError as error:
        return [*found, f"syntax: {error}"]
    found += _tree_faults(tree)
    shown = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target.legend))
    if missing := shown - _labels_of(tree):
        found.append(f"legend names {sorted(missing)}")
    return found


def metrics_of(target: Target) -> set[str]:
    """Return the metrics that a query put to Prometheus names; a histogram by its own name."""
    selectors = _selectors(promql.parse(fill_in(target.expr, window="1m", view="1h")))
    return {_metric(selector.name) for selector in selectors}


def _children(node: Any) -> list[Any]:
    if isinstance(node, promql.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql.Call):
        return list(node.args)
    if isinstance(node, promql.BinaryExpr):
        return [node.lhs, node.rhs]
    return [node.expr] if hasattr(node, "expr") else []


def _selectors(node: Any) -> list[Any]:
    if isinstance(node, promql.VectorSelector):
        return [node]
    return [selector for child in _children(node) for selector in _selectors(child)]


def _metric(name: str) -> str:
    stem = re.sub(r"_(bucket|count|sum)$", "", name)
    return stem if stem in METRICS and METRICS[stem].kind == "histogram" else name


def _labels_of(node: Any) -> set[str]:
    """Return the labels that what *node* finds may have."""
    if isinstance(node, promql.VectorSelector):
        return _labels(node.name or "")
    if isinstance(node, promql.AggregateExpr) and str(node.op) != "topk":
        return set(node.modifier.labels) if node.modifier else set()
    return {label for child in _children(node) for label in _labels_of(child)}


def _labels(name: str) -> set[str]:
    metric = METRICS.get(_metric(name))
    if metric is None:
        return OTHERS.get(name, set())
    return {*metric.labels, *SCRAPED, *({"le"} if name.endswith("_bucket") else ())}


def _tree_faults(node: Any) -> Iterator[str]:
    if isinstance(node, promql.VectorSelector):
        yield from _selector_faults(node)
    if isinstance(node, promql.AggregateExpr) and node.modifier:
        known = {label for child in _children(node) for label in _labels_of(child)}
        yield from (f"no label {label} to group by" for label in node.modifier.labels if label not in known)
    if isinstance(node, promql.Call):
        for selector in _selectors(node):
            if node.func.name in COUNTING and _kind(selector.name) == "gauge":
                yield f"{node.func.name}() of the gauge {selector.name}"
    for child in _children(node):
        yield from _tree_faults(child)


def _kind(name: str) -> str:
    metric = METRICS.get(_metric(name))
    return metric.kind if metric else PROCESS.get(name, "gauge")


def _selector_faults(selector: Any) -> Iterator[str]:
    metric = METRICS.get(_metric(selector.name))
    if metric is None and selector.name not in OTHERS:
        yield f"no metric {selector.name}"
        return
    if metric is not None and (metric.kind == "histogram") != (selector.name != metric.name):
        yield f"{selector.name} is a histogram"
    labels = metric.labels if metric else {}
    for matcher in selector.matchers.matchers:
        if matcher.name not in _labels(selector.name):
            yield f"{selector.name} has no label {matcher.name}"
        values = labels.get(matcher.name)
        wanted = [matcher.value] if matcher.op == promql.MatchOp.Equal else matcher.value.split("|")
        if values is not None:
            yield from (f"{matcher.name} is never {one}" for one in wanted if one != ".*" and one not in values)


# LogQL

_STAGE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^|"])+')
_FILTER = re.compile(r'(\w+)\s*(=~|!~|!=|=|>=|<=|>|<)\s*("(?:[^"\\]|\\.)*"|[\d.]+)')
_FORMAT = re.compile(r'line_format "(.*)"')


def logql_faults(target: Target) -> list[str]:
    """Return what is wrong with a query put to Loki, as far as can be told without one."""
    first, second, *rest = (stage.strip() for stage in _STAGE.findall(target.expr))
    found = [] if (first, second) == ('{app="oneiric"}', "json") else [f"begins with {first} | {second}"]
    fields: set[str] = set()
    events: set[str] = set()
    for stage in rest:
        if match := _FILTER.fullmatch(stage):
            name, _, value = match.groups()
            fields.add(name)
            if name == "event":
                events |= set(value.strip('"').split("|"))
        elif match := _FORMAT.fullmatch(stage):
            fields |= set(re.findall(r"\{\{\s*\.(\w+)\s*\}\}", match[1]))
        else:
            found.append(f"unknown stage {stage}")
    return [*found, *_event_faults(events, fields - EVERY_LINE)]


def _event_faults(events: set[str], fields: set[str]) -> Iterator[str]:
    for event in sorted(events):
        if event not in EVENTS:
            yield f"no event {event}"
        elif EVENTS[event].level == "debug":
            yield f"{event} is not logged by default"
        else:
            yield from (f"{event} has no {field}" for field in sorted(fields - set(EVENTS[event].fields)))
    if not events:
        known = {field for event in EVENTS.values() for field in event.fields}
        yield from (f"no event has {field}" for field in sorted(fields - known))
