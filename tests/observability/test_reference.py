"""The reference pages say what the catalog says, and the catalog says what the package reports."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import oneiric
from oneiric.observability.catalog import EVENTS, METRICS
from oneiric.observability.examples import example
from oneiric.observability.reference import RULES, line, main, pages, readers

ROOT = Path(__file__).parents[2]
PACKAGE = Path(oneiric.__file__).parent
RULES_TEXT = (ROOT / RULES).read_text()
PAGES = dict(pages(RULES_TEXT))
REPORTERS = {"emit": 0, "_emit": 0, "_write": 1}
"""Functions that report an event, and which of their arguments names it."""


def sections(page: str) -> dict[str, str]:
    """Return what stands under each heading of the third rank."""
    parts = re.split(r"^### (.+)$", page, flags=re.MULTILINE)
    return {name: text.partition("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


EVENT_SECTIONS, METRIC_SECTIONS = (sections(PAGES[name]) for name in ("events.md", "metrics.md"))


# The pages


@pytest.mark.parametrize("name", PAGES)
def test_page_in_the_repository_is_current(name: str) -> None:
    committed = (ROOT / "docs" / "reference" / name).read_text()
    assert committed == PAGES[name], "run: make monitoring"


def test_program_writes_the_pages(tmp_path: Path) -> None:
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    (tmp_path / RULES).parent.mkdir(parents=True)
    (tmp_path / RULES).write_text(RULES_TEXT)
    main(tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "docs" / "reference").iterdir()} == PAGES


def test_every_event_is_on_its_page_once() -> None:
    assert sorted(EVENT_SECTIONS) == sorted(EVENTS)


def test_every_metric_is_on_its_page_once() -> None:
    assert sorted(METRIC_SECTIONS) == sorted(METRICS)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_event_is_told_with_its_level_and_fields(event: Any) -> None:
    text = EVENT_SECTIONS[event.name]
    assert f"Level `{event.level}`: {event.tells}." in text
    assert f"Fields: {', '.join(f'`{field}`' for field in event.fields)}." in text


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metric_is_told_with_every_value_of_its_labels(metric: Any) -> None:
    text = METRIC_SECTIONS[metric.name]
    assert f"A {metric.kind}: {metric.tells}." in text
    for label, values in metric.labels.items():
        assert f"| `{label}` | " in text
        assert all(f"`{value}`" in text for value in values or ())


@pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.buckets], ids=lambda metric: metric.name)
def test_histogram_is_told_with_its_buckets(metric: Any) -> None:
    (told,) = re.findall(r"upper bounds: (.*), \+Inf\.", METRIC_SECTIONS[metric.name])
    assert tuple(float(bound) for bound in told.split(", ")) == metric.buckets


def test_links_of_the_pages_lead_somewhere() -> None:
    alerts = re.findall(r"alert: (\w+)", RULES_TEXT)
    anchors = {"events.md": EVENTS, "metrics.md": METRICS, "alerts.md": [name.lower() for name in alerts]}
    for name, text in PAGES.items():
        for page, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", text):
            assert anchor in anchors[page or name]


def test_metric_and_event_name_each_other() -> None:
    assert "[`oneiric_lifecycle_swap_total`]" in EVENT_SECTIONS["swap-failed"]
    assert "[`swap-failed`]" in METRIC_SECTIONS["oneiric_lifecycle_swap_total"]


@pytest.mark.parametrize(
    ("metric", "since"),
    [
        ("oneiric_remote_digest_checks_total", "from the start."),
        ("oneiric_lifecycle_swap_total", "from the registration of a candidate."),
    ],
)
def test_counter_says_from_when_it_reads_0(metric: str, since: str) -> None:
    assert f"Reads 0 {since}" in METRIC_SECTIONS[metric]


def test_alert_reads_a_metric_also_through_a_recording_and_a_bucket() -> None:
    rules = """
groups:
  - rules:
      - {record: "oneiric:swaps:5m", expr: "sum(rate(oneiric_lifecycle_swap_total[5m]))"}
      - {record: "oneiric:unread:5m", expr: "oneiric_lifecycle_leases"}
      - {alert: One, expr: "oneiric:swaps:5m / oneiric_cache_artifacts and oneiric_lifecycle_swap_duration_ms_bucket"}
      - {alert: Two, expr: "vector(1)"}
"""
    names = ("oneiric_lifecycle_swap_total", "oneiric_cache_artifacts", "oneiric_lifecycle_swap_duration_ms")
    assert readers(rules) == dict.fromkeys(names, ("One",))


def test_page_names_the_alert_that_reads_the_digest_checks() -> None:
    assert "[`OneiricDigestVerificationFailed`]" in METRIC_SECTIONS["oneiric_remote_digest_checks_total"]


# The example lines


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_example_is_a_line_with_exactly_the_fields_of_its_event(event: Any) -> None:
    found = json.loads(line(event))
    assert list(found) == ["timestamp", "level", "event", "logger", *event.fields]


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_example_has_a_value_for_every_field(event: Any) -> None:
    values = example(event.name, event.fields)
    assert [name for name, value in values.items() if value == "..."] == [], (
        "say one in oneiric/observability/examples.py"
    )


# What the package reports


def reported(path: Path) -> Iterator[str]:
    """Yield the events that the module at *path* reports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        position = REPORTERS.get(name)
        if position is not None and len(node.args) > position:
            yield from chosen(node.args[position])


def chosen(argument: ast.expr) -> Iterator[str]:
    """Yield the texts that *argument* may be."""
    if isinstance(argument, ast.IfExp):
        yield from chosen(argument.body)
        yield from chosen(argument.orelse)
    elif isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value


REPORTED = {event: path for path in sorted(PACKAGE.rglob("*.py")) for event in reported(path)}


@pytest.mark.parametrize("event", sorted(REPORTED))
def test_event_that_is_reported_is_listed(event: str) -> None:
    assert event in EVENTS, f"{REPORTED[event]} reports it"


@pytest.mark.parametrize("event", EVENTS)
def test_event_that_is_listed_is_reported(event: str) -> None:
    assert event in REPORTED


def test_reports_are_found_in_both_branches_and_by_any_name(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        'emit("a")\nself._emit("b" if x else "c", **d)\nself._write(level, "d", {})\nother("e")\nemit()\n'
    )
    assert list(reported(module)) == ["a", "b", "c", "d"]
