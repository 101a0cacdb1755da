"""What a drill leaves behind: its report as text and as a page, and the list of drills."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from oneiric.doctor.finding import SCENARIOS
from oneiric.drills.drill import Drill
from oneiric.drills.page import curve, page
from oneiric.drills.report import summary
from oneiric.drills.run import Report
from oneiric.drills.scenarios import drills
from oneiric.drills.timeline import Entry, Point, Timeline
from oneiric.monitoring.alerts import alerts
from oneiric.monitoring.profiles import DRILL

ENTRIES = (Entry(1.0, "fault", "the <b>server</b> is down"), Entry(2.5, "alert", "It fires"), Entry(9.0, "cure", "up"))
POINTS = tuple(Point(number / 2, float(number % 5)) for number in range(20))
PASSED = Report(
    code="2A",
    title="a & b",
    alert="OneiricX",
    passed=True,
    fired=1.5,
    cleared=9.0,
    verdict="2A",
    doctor_seconds=0.2,
    entries=ENTRIES,
    points=POINTS,
)
FAILED = Report(code="3A", title="c", alert="OneiricY", failed="waited 60 s in vain for <it>")


def test_there_is_a_drill_for_each_scenario_of_the_runbook() -> None:
    assert [drill.code for drill in drills()] == sorted(SCENARIOS)


@pytest.mark.parametrize("drill", drills(), ids=lambda drill: drill.code)
def test_drill_waits_for_an_alert_that_exists(drill: Drill) -> None:
    assert drill.alert in {alert.name for alert in alerts(DRILL)}


@pytest.mark.parametrize("drill", drills(), ids=lambda drill: drill.code)
def test_drill_looks_before_and_after_the_cure(drill: Drill) -> None:
    assert drill.diagnosis
    assert drill.verification


def test_summary_has_a_line_for_each_drill() -> None:
    _, passed, failed = summary([PASSED, FAILED]).splitlines()
    assert re.fullmatch(r"2A +passed +OneiricX +1\.5 s +2A +0\.2 s +9\.0 s", passed)
    assert re.fullmatch(r"3A +FAILED +OneiricY +- +- +- +- +waited 60 s in vain for <it>", failed)


class Links(HTMLParser):
    """Collects what a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "#").startswith("#")
        ]


def test_page_needs_nothing_from_anywhere() -> None:
    links = Links()
    links.feed(page([PASSED, FAILED]))
    assert links.outside == []


def test_page_shows_text_and_not_markup_of_what_happened() -> None:
    assert "<b>server</b>" not in page([PASSED])


def test_page_says_how_many_passed() -> None:
    assert "1 of 2 drills passed" in page([PASSED, FAILED])


def test_curve_marks_the_fault_the_alert_and_the_cure() -> None:
    assert curve(POINTS, ENTRIES).count("stroke-dasharray") == 3


def test_curve_without_points_is_still_a_picture() -> None:
    assert curve((), ()).startswith("<svg")


def test_curve_stays_within_its_frame() -> None:
    drawn = re.search(r'points="([^"]*)"', curve(POINTS, ENTRIES))
    assert drawn
    places = [tuple(map(float, place.split(","))) for place in drawn[1].split()]
    assert all(0 <= x <= 960 and 0 <= y <= 280 for x, y in places)


def test_timeline_notes_when_things_happened() -> None:
    instants = iter([100.0, 101.5, 103.25])
    told: list[Entry] = []
    timeline = Timeline(told=told.append, clock=lambda: next(instants))
    timeline.note("fault", "now")
    timeline.plot(3.0)
    assert (told, timeline.points) == ([Entry(1.5, "fault", "now")], [Point(3.25, 3.0)])
