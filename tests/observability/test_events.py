"""Events: only what the catalog lists, on one flat line, without secrets and control characters."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.observability.catalog import EVENTS
from oneiric.observability.describe import LIMIT, describe, shorten
from oneiric.observability.logs import LibraryHandler, Reporter, escape, to_logging, to_stream
from oneiric.testing import Events

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
CHANGED = {"file": "settings/app.yml", "domain": ""}


@pytest.fixture
def report(events: Events) -> Reporter:
    return Reporter(events)


def lines(*reported: tuple[str, dict[str, Any]], as_json: bool = True, minimum: str = "debug") -> list[str]:
    stream = io.StringIO()
    reporter = Reporter(to_stream(stream, minimum=minimum, as_json=as_json))
    for event, fields in reported:
        reporter(event, **fields)
    return stream.getvalue().splitlines()


def one(event: str = "config-changed", **fields: Any) -> dict[str, Any]:
    (line,) = lines((event, {**CHANGED, **fields}))
    found: dict[str, Any] = json.loads(line)
    return found


# The catalog


def test_event_that_is_not_listed_is_refused(report: Reporter) -> None:
    with pytest.raises(KeyError):
        report("something-else")


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_event_that_lacks_a_field_is_refused_by_name(event: Any, report: Reporter) -> None:
    for missing in event.fields:
        with pytest.raises(ValueError, match=rf"event {event.name} lacks {missing}"):
            report(event.name, **{name: "" for name in event.fields if name != missing})


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_event_with_all_its_fields_is_one_line_with_all_of_them(event: Any) -> None:
    (line,) = lines((event.name, dict.fromkeys(event.fields, "")))
    assert {"timestamp", "level", "event", "logger", *event.fields} <= json.loads(line).keys()


def test_fields_beyond_those_listed_are_kept() -> None:
    assert one(extra=1)["extra"] == 1


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_event_is_named_and_told_as_the_style_says(event: Any) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", event.name)
    assert event.tells
    assert len(set(event.fields)) == len(event.fields)


RUNBOOK = (
    "resolver-decision health-check-failed swap-complete swap-failed swap-rollback instance-activated "
    "cleanup-started cleanup-complete cleanup-failed config-changed"
)


@pytest.mark.parametrize("name", RUNBOOK.split())
def test_event_of_the_runbook_is_listed(name: str) -> None:
    assert name in EVENTS


def test_failed_outcome_is_a_warning() -> None:
    fields = {"domain": "adapter", "key": "cache", "provider": "", "outcome": "failed", "error": "none"}
    assert one("resolver-decision", **fields)["level"] == "warning"


# Lines


def test_line_begins_with_when_how_grave_what_and_who() -> None:
    assert list(one())[:4] == ["timestamp", "level", "event", "logger"]


def test_timestamp_is_rfc_3339_in_utc() -> None:
    assert STAMP.fullmatch(one()["timestamp"])


def test_numbers_and_truths_stay_what_they_are() -> None:
    found = one(duration_ms=1.5, leases=2, rolled_back=True, nothing=None)
    assert (found["duration_ms"], found["leases"], found["rolled_back"], found["nothing"]) == (1.5, 2, True, None)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, ("a",), {1}, object(), b"x", ValueError("x")])
def test_anything_else_becomes_text(value: Any) -> None:
    assert one(value=value)["value"] == str(value)


@given(st.text())
def test_every_text_is_one_line_that_reads_back(text: str) -> None:
    (line,) = lines(("config-changed", {**CHANGED, "file": text}))
    assert json.loads(line)["file"] == shorten(text)


@given(st.text())
def test_every_text_is_one_printable_line_for_people_too(text: str) -> None:
    (line,) = lines(("config-changed", {**CHANGED, "file": text}), as_json=False)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)


def test_field_is_cut_at_four_kibibytes() -> None:
    assert len(one(file="x" * 100_000)["file"].encode()) <= 4096


def test_field_that_is_cut_says_so() -> None:
    assert one(file="x" * 100_000)["file"].endswith("[... cut]")


def test_field_that_fits_is_whole() -> None:
    assert one(file="x" * 4096)["file"] == "x" * 4096


def test_field_of_long_characters_is_cut_at_four_kibibytes_too() -> None:
    assert len(one(file="\U0001f600" * 4096)["file"].encode()) <= 4096


@pytest.mark.parametrize("minimum", ["info", "warning"])
def test_events_below_the_level_are_left_out(minimum: str) -> None:
    wrong = ("config-rejected", {"file": "app.yml", "error": "no"})
    found = [json.loads(line)["event"] for line in lines(("config-changed", CHANGED), wrong, minimum=minimum)]
    assert found == [*(["config-changed"] if minimum == "info" else []), "config-rejected"]


def test_line_for_people_has_what_matters() -> None:
    (line,) = lines(("config-changed", CHANGED), as_json=False)
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    config-changed +file=settings/app.yml", line)


def test_embedding_program_finds_events_in_its_own_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "oneiric"):
        Reporter(to_logging)("config-changed", file="a\nb", domain="")
    assert caplog.messages == ["config-changed file=a\\x0ab"]


def test_what_libraries_log_becomes_an_event_with_its_traceback(events: Events) -> None:
    failure = ValueError("inside")
    problem = (ValueError, failure, None)
    record = logging.LogRecord("library", logging.ERROR, "file", 1, "it broke: %s", ("badly",), problem)
    LibraryHandler(events).handle(record)
    (event,) = events.named("library-log")
    assert (event["logger"], event["message"]) == ("library", "it broke: badly")
    assert "ValueError: inside" in event["exception"]


@pytest.mark.parametrize("text", ["\x1b[31m", "\r\n", "\x00", "\x7f", "\x9b", "\u2028"])
def test_control_characters_are_escaped(text: str) -> None:
    assert escape(text).isprintable()


# Secrets


def test_secret_is_masked_wherever_it_stands(report: Reporter, events: Events) -> None:
    report.hide(["hunter2"])
    report("config-changed", file="a hunter2 b", domain=["hunter2"], error=ValueError("hunter2"))
    assert events.all == [("config-changed", {"file": "a *** b", "domain": "['***']", "error": "***"})]


def test_longer_secret_is_masked_before_the_one_it_contains(report: Reporter, events: Events) -> None:
    report.hide(["abcd", "abcdefgh"])
    report("config-changed", file="abcdefgh", domain="")
    assert events.named("config-changed")[0]["file"] == "***"


def test_secret_that_the_cut_would_split_is_masked_whole(report: Reporter, events: Events) -> None:
    report.hide(["hunter2-canary"])
    report("config-changed", file="x" * (LIMIT - 16) + "hunter2-canary" + "y" * 100, domain="")
    assert "hunter" not in events.named("config-changed")[0]["file"]


def test_secrets_stay_hidden_when_others_are_added(report: Reporter, events: Events) -> None:
    report.hide(["first-secret"])
    report.hide(["second-secret"])
    report("config-changed", file="first-secret second-secret", domain="")
    assert events.named("config-changed")[0]["file"] == "*** ***"


def test_text_too_short_to_be_a_secret_is_kept(report: Reporter, events: Events) -> None:
    report.hide(["", "a", "abc"])
    report("config-changed", file="abc", domain="")
    assert events.named("config-changed")[0]["file"] == "abc"


# Errors


class ReadTimeoutError(TimeoutError):
    """As a library derives it."""


def foreign(name: str, *bases: type[Exception]) -> Exception:
    error: Exception = type(name, bases or (Exception,), {})("no answer")
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError: "),
        (ImportError("no"), "ImportError: no"),
        (ModuleNotFoundError("No module named 'x'"), "ImportError(ModuleNotFoundError): No module named 'x'"),
        (TimeoutError("slow"), "timeout: TimeoutError: slow"),
        (ReadTimeoutError("slow"), "timeout: ReadTimeoutError: slow"),
        (foreign("TimeoutError"), "timeout: TimeoutError: no answer"),
        (foreign("ConnectTimeout", type("TimeoutError", (Exception,), {})), "timeout: ConnectTimeout: no answer"),
        (ConnectionRefusedError(111, "refused"), "connection: ConnectionRefusedError: [Errno 111] refused"),
        (foreign("ConnectionError"), "connection: ConnectionError: no answer"),
        (socket.gaierror(-2, "unknown"), "dns: gaierror: [Errno -2] unknown"),
        (ssl.SSLError(1, "bad"), "tls: SSLError: "),
        (ssl.SSLCertVerificationError(1, "bad"), "tls: SSLCertVerificationError: "),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_error_is_described_by_category_class_and_message(error: BaseException, text: str) -> None:
    assert describe(error).startswith(text)


@pytest.mark.parametrize(
    ("error", "pattern"),
    [
        (TimeoutError("x"), ".*timeout.*|.*connection.*"),
        (ConnectionResetError("x"), ".*timeout.*|.*connection.*"),
        (ModuleNotFoundError("x"), ".*ImportError.*"),
    ],
)
def test_error_is_found_by_the_pattern_of_the_runbook(error: Exception, pattern: str) -> None:
    assert re.fullmatch(pattern, describe(error))


def test_described_error_is_bounded() -> None:
    assert len(describe(ValueError("x" * 100_000))) <= LIMIT


def test_error_that_cannot_be_printed_is_described_all_the_same() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Unspeakable()) == "Unspeakable: <Unspeakable cannot be printed: RuntimeError>"


def test_describing_errors_imports_no_network_library() -> None:
    program = (
        "import sys; from oneiric.observability.describe import describe; describe(TimeoutError('x'));"
        "print(sorted({'ssl', 'socket', 'structlog', 'asyncio'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout == "[]\n"
