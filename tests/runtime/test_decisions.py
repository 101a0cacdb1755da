"""Decisions are logged when they are news."""

from __future__ import annotations

from typing import Any

import pytest

from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy, Resolution, resolve
from oneiric.observability.logs import Reporter
from oneiric.runtime import decisions
from oneiric.runtime.decisions import Decisions
from oneiric.testing import PART, Events, Workshop


@pytest.fixture
def noted(events: Events) -> Decisions:
    return Decisions(Reporter(events))


def won_by(provider: str, workshop: Workshop) -> Resolution:
    return resolve(Registry().with_source("code", [workshop.candidate(provider)]), Policy(), PART)


NOBODY = resolve(Registry(), Policy(), PART)


def said(events: Events) -> list[tuple[Any, ...]]:
    return [(e["outcome"], e["provider"], e["suppressed"]) for e in events.named("resolver-decision")]


def test_first_decision_is_logged_and_its_repetition_is_not(
    noted: Decisions, events: Events, workshop: Workshop
) -> None:
    for _ in range(100):
        noted.note(won_by("a", workshop))
    assert said(events) == [("success", "a", 0)]


def test_every_change_is_logged_with_how_often_the_last_one_was_repeated(
    noted: Decisions, events: Events, workshop: Workshop
) -> None:
    for provider in "aab":
        noted.note(won_by(provider, workshop))
    assert said(events) == [("success", "a", 0), ("success", "b", 1)]


def test_failure_is_logged_with_its_reason(noted: Decisions, events: Events) -> None:
    noted.note(NOBODY)
    (event,) = events.named("resolver-decision")
    assert (event["outcome"], event["reason"], event["error"]) == (
        "failed",
        "no-candidates",
        "No candidate found for adapter/part: no candidate is registered",
    )


def test_failure_is_logged_again_only_after_a_second(
    noted: Decisions, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(decisions, "monotonic", lambda: now)
    for tenth in range(21):
        now = tenth / 10
        noted.note(NOBODY)
    assert said(events) == [("failed", "", 0), ("failed", "", 9), ("failed", "", 9)]


def test_success_after_a_failure_is_logged_at_once(noted: Decisions, events: Events, workshop: Workshop) -> None:
    noted.note(NOBODY)
    noted.note(won_by("a", workshop))
    assert [outcome for outcome, _, _ in said(events)] == ["failed", "success"]
