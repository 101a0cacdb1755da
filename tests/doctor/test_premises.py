"""What everything stands on: disks, state, log, event loop, and a daemon that answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from oneiric.doctor.examine import examine as all_rules
from oneiric.doctor.finding import Finding
from oneiric.doctor.premises import examine
from oneiric.doctor.vitals import Attempt, Disk, SlotVital, Vitals
from tests.doctor.commands import untypeable
from tests.doctor.remotes import ANY_VITALS, at, disk, failing, happened, process, vitals

STATE = ".oneiric_state/state.db: OperationalError: database or disk is full"
LOG = "the log cannot be written: OSError: [Errno 28] No space left on device"
SILENT = "the daemon at x.sock does not answer within 10 s; it may be stopped or blocked; try: ps -o pid,stat -p 4711"
FULL = disk(free_bytes=1 << 20)


def found(**changed: Any) -> list[Finding]:
    return list(examine(vitals(**changed)))


def daemon(**changed: Any) -> list[Finding]:
    return found(process=process(**changed))


def small(free: int, total: int) -> Disk:
    return disk(free_bytes=free << 20, total_bytes=total << 20)


@pytest.mark.parametrize(
    "well",
    [
        vitals(),
        vitals(process=None, remote=None, disks=()),
        vitals(disks=(small(60, 64), disk(free_bytes=2 << 30))),
        vitals(disks=(disk(free_bytes=0, total_bytes=0),)),
        vitals(process=process(loop_lag=0.9)),
        vitals(process=process(loop_lag=3.0, started_at=at(-20))),
        vitals(process=process(watch="off")),
        vitals(unreachable="it did not answer at first"),
    ],
    ids=[
        "idle",
        "no daemon",
        "disks with room",
        "disk that tells nothing",
        "busy",
        "just started",
        "no watch",
        "answers",
    ],
)
def test_healthy_daemon_is_silent(well: Vitals) -> None:
    assert list(examine(well)) == []


WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "full disk": ({"disks": (FULL,)}, "disk", "full", "P1"),
    "full small disk": ({"disks": (small(1, 64),)}, "disk", "full", "P1"),
    "read-only disk": ({"disks": (disk(error="is not writable"),)}, "disk", "not writable", "P1"),
    "state": ({"process": process(degraded=STATE)}, "state", "", "P1"),
    "log": ({"process": process(degraded=LOG)}, "log", "", "P1"),
    "late loop": ({"process": process(loop_lag=1.5)}, "event-loop", "", "P2"),
    "abandoned calls": ({"process": process(abandoned_calls=2)}, "abandoned-calls", "", "P2"),
    "paused watch": ({"process": process(watch="paused")}, "watch-paused", "", "P3"),
    "silent daemon": ({"process": None, "unreachable": SILENT}, "daemon", "unreachable", "P0"),
    "daemon of another user": (
        {"process": None, "unreachable": "the daemon at x belongs to another user: the socket admits its own"},
        *("daemon", "another user", "P3"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_broken_premise_is_found_by_its_own_code_and_no_other(name: str) -> None:
    changed, *expected = WRONG[name]
    assert [[one.code, one.variant, one.priority] for one in found(**changed)] == [expected]


@pytest.mark.parametrize("name", WRONG)
def test_no_other_rule_finds_anything_beside_it(name: str) -> None:
    changed, code, *_ = WRONG[name]
    assert [finding.code for finding in all_rules(vitals(**changed))] == [code]


@pytest.mark.parametrize("name", WRONG)
def test_finding_says_what_was_seen_what_to_type_and_what_ends_it(name: str) -> None:
    (finding,) = found(**WRONG[name][0])
    assert [bool(part) for part in (finding.title, finding.evidence, finding.commands, finding.confirm)] == [True] * 4


@pytest.mark.parametrize("name", WRONG)
def test_commands_can_be_typed(name: str) -> None:
    assert untypeable(found(**WRONG[name][0])[0].commands) == []


def test_every_bad_disk_is_named() -> None:
    disks = (disk(path="a", free_bytes=0), disk(path="b", error="is not writable"), disk(path="c"))
    assert [one.subject for one in found(disks=disks)] == ["a", "b"]


def test_full_disk_shows_how_much_is_free() -> None:
    assert found(disks=(FULL,))[0].evidence == (".oneiric_state: 1.0 MiB of 100.0 GiB are free",)


def test_disk_that_keeps_synchronisations_from_succeeding_shows_that() -> None:
    error = "OSError: [Errno 28] No space left on device"
    (finding,) = found(disks=(FULL,), remote=failing("disk", error))
    assert error in finding.evidence[-1]


@pytest.mark.parametrize(("words", "code"), [(STATE, "state"), (LOG, "log")])
def test_what_a_full_disk_takes_down_follows_from_it(words: str, code: str) -> None:
    findings = found(disks=(FULL,), process=process(degraded=words))
    assert [(one.code, one.caused_by) for one in findings] == [("disk", ""), (code, "disk")]


def test_log_whose_reader_left_does_not_follow_from_a_full_disk() -> None:
    broken = "the log cannot be written: connection: BrokenPipeError: Broken pipe"
    assert [one.caused_by for one in found(disks=(FULL,), process=process(degraded=broken))] == ["", ""]


def test_state_and_log_are_told_apart() -> None:
    findings = daemon(degraded=f"{STATE}; {LOG}")
    assert [(one.code, one.evidence[0]) for one in findings] == [("state", STATE), ("log", LOG)]


def test_state_says_since_when() -> None:
    (finding,) = found(process=process(degraded=STATE), recent=(happened("state-degraded", -60, error=STATE),))
    assert finding.evidence[-1] == "since 2026-03-04T14:01:11Z"


def test_abandoned_calls_name_who_timed_out_of_late() -> None:
    timeout = {"previous": "", "outcome": "failed", "reason": "timeout", "error": "", "duration": 30.0}
    attempts = tuple(Attempt(at=at(s), provider=p, **timeout) for s, p in ((-7000, "old"), (-60, "slow")))
    slot = SlotVital(domain="adapter", key="cache", attempts=attempts)
    (finding,) = found(slots=(slot,), process=process(abandoned_calls=1))
    assert finding.evidence == (
        "1 call given up and not ended",
        "adapter/cache: slow timed out at 2026-03-04T14:01:11Z",
    )


def test_abandoned_calls_follow_from_a_swap_that_was_given_up() -> None:
    late = Attempt(
        at=at(-60),
        provider="slow",
        previous="memory",
        outcome="failed",
        reason="timeout",
        error="timeout: TimeoutError: no answer within 30 s",
        duration=30.0,
    )
    slot = SlotVital(
        domain="adapter", key="cache", state="ready", serving="memory", winner="slow", wanted=True, attempts=(late,)
    )
    findings = all_rules(vitals(slots=(slot,), process=process(abandoned_calls=1)))
    assert [(one.code, one.caused_by) for one in findings] == [("2C", ""), ("abandoned-calls", "2C")]


def test_paused_watch_says_who_paused_it() -> None:
    (finding,) = found(process=process(watch="paused"), recent=(happened("watch-paused", -60, by="uid 1000"),))
    assert finding.evidence == ("watch paused, since 2026-03-04T14:01:11Z by uid 1000",)


def test_silent_daemon_is_looked_at_by_its_pid() -> None:
    assert found(process=None, unreachable=SILENT)[0].commands[0] == "ps -o pid,stat,etime,args -p 4711"


@given(ANY_VITALS)
def test_any_vitals_are_examined_without_an_error(some: Vitals) -> None:
    for finding in examine(some):
        assert finding.evidence
        assert finding.commands
        assert finding.confirm


def test_state_that_was_lost_at_the_start_is_told() -> None:
    lost = happened("state-discarded", file="state.db", error="state.db: format 99 is not ours")
    (finding,) = examine(vitals(process=process(), recent=(lost,)))
    assert (finding.code, finding.variant, "format 99" in finding.evidence[0]) == ("state", "discarded", True)
