"""One drill from beginning to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, Final

import msgspec

from oneiric.drills.drill import Check, Drill, Monitor
from oneiric.drills.sandbox import DrillFailedError, Sandbox, sandbox
from oneiric.drills.timeline import Entry, Point, Timeline
from oneiric.errors import OneiricError

DOCTOR_TIMEOUT: Final = 2.0
"""Seconds within which the doctor must answer."""
_SAMPLE: Final = 0.5
_STEADY: Final = 30.0
_TRIES: Final = 3

Watch = Callable[[Sandbox], AbstractContextManager[Monitor]]
"""Begins to watch a sandbox's daemon."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill found out; ``failed`` says which step did not do what the runbook promises, "" for none.

    ``fired`` and ``cleared`` are seconds from the fault to the alert and from the cure to its end; ``verdict`` is what
    the doctor said first, in ``doctor_seconds``.
    """

    code: str
    title: str
    alert: str
    monitor: str = ""
    plot: str = ""
    passed: bool = False
    failed: str = ""
    fired: float | None = None
    cleared: float | None = None
    expected: str = ""
    verdict: str = ""
    doctor_seconds: float | None = None
    seconds: float = 0.0
    directory: str = ""
    entries: tuple[Entry, ...] = ()
    points: tuple[Point, ...] = ()


class _Course:
    """How far a drill has come."""

    def __init__(self, drill: Drill, timeline: Timeline) -> None:
        self.drill = drill
        self.timeline = timeline
        self.facts: dict[str, Any] = {}

    def go(self, project: Sandbox, watch: Watch, stack: ExitStack) -> None:
        """Carry it out; raises DrillFailedError at the first step that does not do what it should."""
        drill, timeline = self.drill, self.timeline
        drill.prepare(project)
        project.start()
        monitor = stack.enter_context(watch(project))
        self.facts["monitor"] = monitor.name
        stack.enter_context(_plotting(drill.plot, monitor, timeline))
        self._prove_healthy(project, monitor)
        timeline.note("fault", drill.title)
        drill.inject(project)
        injected = time.monotonic()
        project.wait(lambda: monitor.is_firing(drill.alert), f"{drill.alert} to fire", timeout=drill.fire_timeout)
        self.facts["fired"] = round(time.monotonic() - injected, 1)
        timeline.note("alert", f"{drill.alert} fires")
        self._check(project, monitor, drill.diagnosis, "diagnosis")
        self._ask_doctor(project)
        timeline.note("cure", "the runbook's resolution")
        cured = time.monotonic()
        drill.resolve(project)
        project.wait(lambda: not monitor.is_firing(drill.alert), f"{drill.alert} to clear", timeout=drill.clear_timeout)
        self.facts["cleared"] = round(time.monotonic() - cured, 1)
        timeline.note("alert", f"{drill.alert} clears")
        self._check(project, monitor, drill.verification, "verification")
        self._require_over(project)
        code = project.stop()
        if code != drill.leaves:
            raise DrillFailedError(f"the daemon ended with exit code {code}, not {drill.leaves}")

    def _prove_healthy(self, project: Sandbox, monitor: Monitor) -> None:
        """See that nothing is wrong before the fault: the alert is quiet, and the doctor finds nothing."""
        expression = 'up{job="oneiric"}'
        project.wait(lambda: 1.0 in monitor.query(expression), "the first scrape", timeout=_STEADY)
        if monitor.is_firing(self.drill.alert):
            raise DrillFailedError(f"{self.drill.alert} fires before anything was done")
        findings = project.oneiric("doctor", "--json").document["findings"]
        if findings:
            raise DrillFailedError(f"the doctor finds something before anything was done: {findings[0]['title']}")
        self.timeline.note("healthy", f"{self.drill.alert} is quiet, the doctor finds nothing")

    def _check(self, project: Sandbox, monitor: Monitor, checks: tuple[Check, ...], kind: str) -> None:
        for check in checks:
            self.timeline.note(kind, f"{check.text}  -> {check.look(project, monitor)}")

    def _ask_doctor(self, project: Sandbox) -> None:
        """Ask the doctor, who was told nothing, and compare; a busy machine gets three tries to be quick."""
        answers = []
        for _ in range(_TRIES):
            answers.append(project.oneiric("doctor", "--json", expect=1))
            if answers[-1].seconds <= DOCTOR_TIMEOUT:
                break
        findings = answers[0].document["findings"]
        seconds = min(answer.seconds for answer in answers)
        self.facts |= {"verdict": findings[0]["code"], "doctor_seconds": round(seconds, 2)}
        said = ", ".join(f"{one['code']} {one['title']}" for one in findings)
        self.timeline.note("doctor", said)
        if findings[0]["code"] != self.drill.expected:
            raise DrillFailedError(f"the doctor says {said}; it is {self.drill.expected}")
        if seconds > DOCTOR_TIMEOUT:
            raise DrillFailedError(f"the doctor took {seconds:.1f} s, more than {DOCTOR_TIMEOUT:g} s")

    def _require_over(self, project: Sandbox) -> None:
        """Wait until the doctor says no more what he said: some of it is about the last minutes."""

        def is_over() -> bool:
            findings = project.oneiric("doctor", "--json", quiet=True).document["findings"]
            return self.drill.expected not in {one["code"] for one in findings}

        project.wait(is_over, f"the doctor to find {self.drill.expected} no more", timeout=_STEADY * 2)
        self.timeline.note("doctor", "no longer finds it")


def run(
    drill: Drill, watch: Watch, *, keep: bool = False, told: Callable[[Entry], None] = lambda _entry: None
) -> Report:
    """Carry out *drill* in a sandbox of its own; never raises for what the drill finds.

    Args:
        watch: begins to watch the daemon.
        keep: leave the sandbox's directory for somebody to look at.
        told: hears each entry of the timeline as it is noted.
    """
    timeline = Timeline(told=told)
    course = _Course(drill, timeline)
    failed, directory = "", ""
    try:
        with sandbox(timeline, keep=keep) as project, ExitStack() as stack:
            directory = str(project.directory) if keep else ""
            course.go(project, watch, stack)
    except (OneiricError, OSError, ValueError, LookupError) as error:
        failed = f"{type(error).__name__}: {error}"
        timeline.note("failed", failed)
    return Report(
        code=drill.code,
        title=drill.title,
        alert=drill.alert,
        plot=drill.plot,
        expected=drill.expected,
        passed=not failed,
        failed=failed,
        seconds=timeline.now(),
        directory=directory,
        entries=tuple(timeline.entries),
        points=tuple(timeline.points),
        **course.facts,
    )


@contextmanager
def _plotting(expression: str, monitor: Monitor, timeline: Timeline) -> Iterator[None]:
    """Note the value of *expression* twice a second meanwhile."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLE):
            with suppress(OSError, OneiricError, ValueError):
                for value in monitor.query(expression)[:1]:
                    timeline.plot(value)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
