"""When a fetch is tried again, and how long is waited first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.retry import MAX_RETRY_AFTER, Retry, backoff, is_passing, read_retry_after
from oneiric.errors import FetchError

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
CHANCE = st.floats(0, 1, exclude_max=True)


def failure(reason: str = "connection", status: int | None = None, retry_after: float | None = None) -> FetchError:
    return FetchError("", reason=reason, status=status, retry_after=retry_after)


@given(attempt=st.integers(1, 10_000), chance=CHANCE)
def test_backoff_never_exceeds_its_bound(attempt: int, chance: float) -> None:
    assert 0.0 <= backoff(attempt, chance, first=0.5, longest=30.0) <= min(30.0, 0.5 * 2.0 ** min(attempt - 1, 100))


def test_backoff_bound_doubles_up_to_the_longest() -> None:
    assert [backoff(attempt, 1.0, first=1.0, longest=10.0) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(attempt=st.integers(1, 20))
def test_backoff_is_full_jitter(attempt: int) -> None:
    assert backoff(attempt, 0.0) == 0.0
    assert backoff(attempt, 0.25) * 2 == backoff(attempt, 0.5)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_or_broken_server_is_tried_again(status: int) -> None:
    assert is_passing(failure("http", status))


@pytest.mark.parametrize("status", [204, 301, 304, 400, 401, 403, 404, 410, 418])
def test_refusal_of_a_server_is_not_tried_again(status: int) -> None:
    assert not is_passing(failure("http", status))


@pytest.mark.parametrize("reason", ["timeout", "connection", "dns"])
def test_trouble_on_the_way_is_tried_again(reason: str) -> None:
    assert is_passing(failure(reason))


@pytest.mark.parametrize("reason", ["tls", "size", "redirect", "policy", "file", "http"])
def test_what_only_a_person_can_change_is_not_tried_again(reason: str) -> None:
    assert not is_passing(failure(reason))


def test_retry_gives_up_after_the_last_attempt() -> None:
    retry = Retry(attempts=3)
    assert [retry.wait(attempt, failure(), chance=0.5) is None for attempt in (1, 2, 3)] == [False, False, True]


def test_retry_after_outlasts_a_shorter_backoff() -> None:
    assert Retry().wait(1, failure("http", 429, retry_after=7.0), chance=0.0) == 7.0


def test_retry_after_does_not_shorten_the_backoff() -> None:
    assert Retry(first_wait=8.0).wait(1, failure("http", 429, retry_after=1.0), chance=1.0) == 8.0


def test_retry_after_beyond_our_patience_is_left_to_the_next_round() -> None:
    assert Retry(longest_wait=30.0).wait(1, failure("http", 429, retry_after=31.0), chance=0.0) is None


@given(seconds=st.integers(1, 10**30))
def test_retry_after_in_seconds_is_read_and_capped(seconds: int) -> None:
    assert read_retry_after(f" {seconds} ", now=NOW) == min(seconds, MAX_RETRY_AFTER)


@given(seconds=st.integers(1, 10**7))
def test_retry_after_as_a_date_is_read_and_capped(seconds: int) -> None:
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert read_retry_after(header, now=NOW) == min(seconds, MAX_RETRY_AFTER)


@pytest.mark.parametrize("header", ["Thursday, 01-Jan-26 12:01:40 GMT", "Thu Jan  1 12:01:40 2026"])
def test_retry_after_in_the_old_forms_of_a_date_is_read(header: str) -> None:
    assert read_retry_after(header, now=NOW) == 100.0


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "0",
        "-1",
        "1.5",
        "soon",
        "\uff11\uff12",
        "9" * 99 + "x",
        "Wed, 31 Dec 2025 12:00:00 GMT",
        "Thu, 99 Foo 2026",
        "\x00",
    ],
)
def test_retry_after_that_is_garbage_or_past_is_ignored(header: str | None) -> None:
    assert read_retry_after(header, now=NOW) is None


@given(
    header=st.text()
    | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ ([A-Z]+|[+-]\d+)", fullmatch=True)
)
def test_retry_after_never_raises_and_never_exceeds_an_hour(header: str) -> None:
    wait = read_retry_after(header, now=NOW)
    assert wait is None or 0.0 < wait <= MAX_RETRY_AFTER


def test_retry_after_of_endless_digits_is_an_hour() -> None:
    assert read_retry_after("9" * 100_000, now=NOW) == MAX_RETRY_AFTER
