"""The evaluator of LogQL answers as Loki does, the traps included, and refuses what it does not know."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oneiric.observability.describe import describe
from tests.harness.logql import ERROR, LogQLError, measure, parse, select

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
JSON = '{app="oneiric"} | json'


def line(event: str = "swap-failed", /, *, age: float = 1.0, **fields: Any) -> str:
    """Return a line that was written *age* seconds before noon."""
    return json.dumps({"timestamp": (NOON - timedelta(seconds=age)).isoformat(), "event": event, **fields})


def texts(query: str, *lines: str) -> list[str]:
    return [found.text for found in select(query, lines)]


def is_found(stages: str, **fields: Any) -> bool:
    return bool(select(f"{JSON} | {stages}", [line(**fields)]))


# Streams and lines


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ('{app="oneiric"}', True),
        ('{app="oneiric", instance=~"h.+"}', True),
        ('{app!="oneiric"}', False),
        ('{app=~"one"}', False),
        ('{app="oneiric", event="swap-failed"}', False),
    ],
)
def test_stream_is_chosen_by_its_labels_and_never_by_fields(selector: str, found: bool) -> None:
    assert bool(select(selector, [line()])) == found


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ('|= "breaker open"', True),
        ('|= "Breaker open"', False),
        ('!= "breaker open"', False),
        ('|~ "break.r"', True),
        ('!~ "break.r"', False),
        ("|~ `\\w+ open`", True),
    ],
)
def test_line_filter_looks_anywhere_in_the_line(stage: str, found: bool) -> None:
    assert bool(select(f'{{app="oneiric"}} {stage}', [line(error="circuit breaker open: wait")])) == found


def test_line_filter_after_json_is_no_label_filter() -> None:
    assert texts(f'{JSON} != "swap-failed"', line(), line("swap-complete")) == [line("swap-complete")]


# Labels


def test_fields_are_no_labels_before_json() -> None:
    assert not select('{app="oneiric"} | event="swap-failed"', [line()])


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (12, "12"), (1.50, "1.5"), (True, "true"), (False, "false"), ("", "")],
)
def test_scalar_field_is_a_label(value: Any, text: str) -> None:
    (found,) = select(JSON, [line(field=value)])
    assert found.labels["field"] == text


@pytest.mark.parametrize("value", [None, [1]])
def test_list_and_null_are_no_labels(value: Any) -> None:
    (found,) = select(JSON, [line(field=value)])
    assert "field" not in found.labels


def test_field_named_like_a_stream_label_is_extracted_under_another_name() -> None:
    (found,) = select(JSON, [line(app="mine")])
    assert (found.labels["app"], found.labels["app_extracted"]) == ("oneiric", "mine")


def test_object_is_flattened_so_that_the_field_itself_is_missing() -> None:
    (found,) = select(JSON, [line(error={"type": "ValueError"})])
    assert (found.labels["error_type"], "error" in found.labels) == ("ValueError", False)


def test_line_that_is_no_json_stays_and_carries_an_error() -> None:
    (found,) = select(JSON, ["Traceback (most recent call last):"])
    assert found.labels[ERROR] == "JSONParserErr"


def test_line_that_is_no_json_is_not_found_by_a_field() -> None:
    assert not select(f'{JSON} | event="swap-failed"', ["Traceback (most recent call last):"])


def test_traceback_in_a_field_of_its_own_is_found_with_its_event() -> None:
    trace = "Traceback (most recent call last):\n  File\nValueError: inside"
    assert select(f"{JSON} | exception=~`(?s).*ValueError.*`", [line(exception=trace)])


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ('key="cache"', True),
        ('key="cach"', False),
        ('key!="cache"', False),
        ('key=~"ca.*"', True),
        ('key=~"ach"', False),
        ('key=~"x|cache"', True),
        ('key!~"ca.*"', False),
        ('missing=""', True),
        ('missing!="x"', True),
        ('missing=~".*"', True),
        ('missing=~".+"', False),
    ],
)
def test_label_filter_compares_text_anchored_and_what_is_missing_as_empty(stage: str, found: bool) -> None:
    assert is_found(stage, key="cache") == found


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ("duration_ms > 10000", True),
        ("duration_ms >= 12000", True),
        ("duration_ms < 12000", False),
        ("duration_ms <= 12000", True),
        ("duration_ms = 12000", True),
        ("duration_ms == 12000", True),
        ("duration_ms != 12000", False),
        ('duration_ms="12000"', False),
        ("duration_ms > 1.3e4", False),
    ],
)
def test_number_is_compared_as_a_number(stage: str, found: bool) -> None:
    assert is_found(stage, duration_ms=12000.0) == found


@pytest.mark.parametrize("value", ["12000.5", "1.2e4"])
def test_number_in_quotes_is_compared_as_a_number(value: str) -> None:
    assert is_found("duration_ms > 10000", duration_ms=value)


@pytest.mark.parametrize("value", ["12s", "", "1s"])
def test_quoted_duration_is_returned_whatever_it_is_with_an_error(value: str) -> None:
    (found,) = select(f"{JSON} | duration_ms > 10000", [line(duration_ms=value)])
    assert found.labels[ERROR] == "LabelFilterErr"


def test_line_without_the_number_is_dropped() -> None:
    assert not is_found("duration_ms > 10000")


def test_error_label_can_be_filtered_out() -> None:
    assert not is_found(f'duration_ms > 10000 | {ERROR}=""', duration_ms="12s")


# Traps of the runbook's own queries


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("ModuleNotFoundError: No module named 'x'", False),
        (describe(ModuleNotFoundError("No module named 'x'")), True),
        (describe(ImportError("cannot import name 'x'")), True),
    ],
)
def test_missing_module_is_an_import_error_only_if_its_error_says_so(error: str, found: bool) -> None:
    assert is_found('error=~".*ImportError.*"', error=error) == found


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("TimeoutError: timed out", False),
        ("ConnectionRefusedError: [Errno 111] Connection refused", False),
        (describe(TimeoutError("timed out")), True),
        (describe(ConnectionRefusedError(111, "Connection refused")), True),
    ],
)
def test_timeout_and_connection_are_matched_in_lower_case_only(error: str, found: bool) -> None:
    assert is_found('error=~".*timeout.*|.*connection.*"', error=error) == found


def test_open_breaker_is_found_on_whatever_event_has_the_field() -> None:
    lines = [line("a", circuit_breaker="open"), line("b", circuit_breaker="closed"), line("c", error="breaker open")]
    assert texts(f'{JSON} | circuit_breaker="open" | line_format "{{{{.event}}}}"', *lines) == ["a"]


def test_placeholder_of_the_runbook_finds_nothing() -> None:
    assert not is_found('artifact="<artifact>"', artifact="0123456789ab-a.whl")


def test_line_format_prints_fields() -> None:
    query = f'{JSON} | line_format "{{{{.domain}}}}/{{{{ .key }}}}: {{{{.duration_ms}}}}"'
    assert texts(query, line(domain="adapter", key="cache", duration_ms=1.5)) == ["adapter/cache: 1.5"]


def test_line_format_prints_nothing_for_a_missing_field_and_no_error() -> None:
    (found,) = select(f'{JSON} | line_format "{{{{.key}}}}: {{{{.error}}}}"', [line(key="cache")])
    assert (found.text, ERROR in found.labels) == ("cache: ", False)


def test_line_format_prints_nothing_for_an_object() -> None:
    assert texts(f'{JSON} | line_format "{{{{.error}}}}"', line(error={"type": "ValueError"})) == [""]


FAILED = f'{JSON} | event="resolver-decision" | outcome="failed"'


def failures(*keys: str, **fields: Any) -> list[str]:
    return [line("resolver-decision", outcome="failed", domain="adapter", key=key, **fields) for key in keys]


def test_line_format_does_not_group() -> None:
    query = f'{FAILED} | line_format "{{{{.domain}}}}/{{{{.key}}}}"'
    assert texts(query, *failures("a", "b", "a")) == ["adapter/a", "adapter/b", "adapter/a"]


# Numbers


def test_sum_by_groups() -> None:
    query = f"sum by (domain, key) (count_over_time({FAILED} [1h]))"
    assert measure(query, failures("a", "b", "a"), NOON) == {
        (("domain", "adapter"), ("key", "a")): 2,
        (("domain", "adapter"), ("key", "b")): 1,
    }


@pytest.mark.parametrize("query", ["sum by (key) (count_over_time({} [5m]))", "sum(count_over_time({} [5m])) by (key)"])
def test_sum_takes_its_labels_before_or_after(query: str) -> None:
    assert measure(query.replace("{}", FAILED), failures("a"), NOON) == {(("key", "a"),): 1}


def test_sum_without_labels_is_one_number() -> None:
    assert measure(f"sum(count_over_time({FAILED} [5m]))", failures("a", "b"), NOON) == {(): 2}


def test_label_that_a_line_lacks_is_no_label_of_its_series() -> None:
    assert measure(f"sum by (nothing) (count_over_time({FAILED} [5m]))", failures("a"), NOON) == {(): 1}


def test_count_without_a_sum_has_a_series_for_every_set_of_fields() -> None:
    assert len(measure(f"count_over_time({FAILED} [5m])", failures("a", "b"), NOON)) == 2


def test_count_without_a_sum_meets_the_limit_of_series() -> None:
    with pytest.raises(LogQLError, match="501 series"):
        measure(f"count_over_time({FAILED} [5m])", failures(*map(str, range(501))), NOON)


def test_rate_is_per_second() -> None:
    assert measure(f"sum(rate({FAILED} [5m]))", failures(*"abc"), NOON) == {(): pytest.approx(0.01)}


@pytest.mark.parametrize(("age", "count"), [(0.0, 1), (299.0, 1), (300.0, 0), (-1.0, 0)])
def test_window_ends_at_the_instant_and_leaves_out_its_beginning(age: float, count: int) -> None:
    assert sum(measure(f"sum(count_over_time({FAILED} [5m]))", failures("a", age=age), NOON).values()) == count


def test_line_with_an_error_fails_the_whole_count() -> None:
    with pytest.raises(LogQLError, match="LabelFilterErr"):
        measure(f"sum(count_over_time({JSON} | duration_ms > 1 [5m]))", [line(duration_ms="12s")], NOON)


# What is refused


@pytest.mark.parametrize(
    "query",
    [
        "",
        "{}",
        "{app}",
        '{app="oneiric"',
        '{app="oneiric"} |',
        '{app="oneiric"} | json | event=',
        '{app="oneiric"} | json | event="a" "b"',
        '{app="oneiric"} | json | event=open',
        '{app="oneiric"} | json | event>"a"',
        '{app="oneiric"} | json | duration_ms > 10s',
        '{app="oneiric"} | json | duration_ms =~ 10',
        '{app="oneiric"} | json | event="a" or event="b"',
        '{app="oneiric"} | json | event="a", key="b"',
        '{app="oneiric"} | json event="event"',
        '{app="oneiric"} | logfmt',
        '{app="oneiric"} | unwrap duration_ms',
        '{app="oneiric"} | json | event=~"("',
        '{app="oneiric"} | json | event=~"(?=a)"',
        '{app="oneiric"} | json | event=~"a\\d"',
        '{app="oneiric"} | json | line_format "{{.a | upper}}"',
        '{app="oneiric"} | json | line_format "{{.a.b}}"',
        '{app="oneiric"} | json | line_format "{{"',
        "{app='oneiric'}",
        '{app="oneiric"} # why',
        'count_over_time({app="oneiric"})',
        'count_over_time({app="oneiric"}[5])',
        'count_over_time({app="oneiric"}[5m]) > 1',
        'count_over_time({app="oneiric"}[$__range])',
        'bytes_over_time({app="oneiric"}[5m])',
        'sum by () (count_over_time({app="oneiric"}[5m]))',
        'sum(sum(count_over_time({app="oneiric"}[5m])))',
        'sum({app="oneiric"})',
        'sum(count_over_time({app="oneiric"}[5m])',
    ],
)
def test_query_that_is_wrong_or_not_known_here_is_refused(query: str) -> None:
    with pytest.raises(LogQLError):
        parse(query)


def test_refusal_says_where_and_in_which_query() -> None:
    with pytest.raises(LogQLError, match=r"column 25: '' where = or .* is known: .* logfmt"):
        parse('{app="oneiric"} | logfmt')


def test_numbers_are_not_selected_and_lines_not_measured() -> None:
    with pytest.raises(LogQLError, match="finds no lines"):
        select('rate({app="oneiric"}[5m])', [])
    with pytest.raises(LogQLError, match="no numbers"):
        measure(JSON, [], NOON)
