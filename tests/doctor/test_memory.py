"""Runbook 5: instances that stay, memory that grows, many instances, loops; and all rules together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from oneiric.doctor.examine import examine as examine_all
from oneiric.doctor.finding import Finding
from oneiric.doctor.growth import PACES
from oneiric.doctor.looping import RAPID
from oneiric.doctor.memory import MANY, REFERENCED, TOO_MANY, examine
from oneiric.doctor.vitals import MemorySample, ProcessVital, SlotVital, Vitals
from tests.doctor import test_resolution, test_swaps
from tests.doctor.commands import untypeable
from tests.doctor.remotes import ANY_VITALS, at, process
from tests.doctor.vitals import (
    REFUSED,
    SLOT_VITALS,
    attempt,
    growing,
    happening,
    residue,
    sample,
    slot,
    swapping,
    unserved,
    vitals,
)

HELD = residue("held", leases=2, holder="traffic")
FLAPPING = tuple(
    happening("config-changed", -12.0 * number, file="settings/adapters.yml") for number in range(20, 0, -1)
)
ILL = tuple(happening("candidate-quarantined", -20.0 * number, provider="redis") for number in range(12, 0, -1))
FAILED = tuple(happening("swap-failed", -5.0 * number, provider="redis", error=REFUSED) for number in range(40, 0, -1))


def many(number: int, **changed: Any) -> ProcessVital:
    return process(**{"active_instances": number, "instances": number, "memory_limit_bytes": 32 << 30, **changed})


FAULTS: dict[str, tuple[Vitals, str, str, str]] = {
    "held": (vitals(slot(residues=(HELD,))), "5A", "held", "P2"),
    "not closed": (vitals(slot(residues=(residue("not-closed"),))), "5A", "not closed", "P2"),
    "referenced": (vitals(slot(residues=(residue("referenced"),) * REFERENCED)), "5A", "referenced", "P2"),
    "growing": (vitals(process=growing(300.0)), "5B", "", "P2"),
    "growing for hours": (vitals(process=growing(300.0, minutes=110)), "5B", "", "P2"),
    "growing to the limit within the hour": (
        vitals(process=growing(300.0, memory_limit_bytes=800 << 20)),
        "5B",
        "",
        "P1",
    ),
    "growing and at the limit": (vitals(process=growing(300.0, memory_limit_bytes=420 << 20)), "5B", "", "P0"),
    "many": (vitals(process=many(MANY)), "5C", "", "P2"),
    "too many": (vitals(process=many(TOO_MANY)), "5C", "", "P0"),
    "file flapping": (vitals(slot(), recent=(*FLAPPING, *swapping("watch"))), "5D", "config flapping", "P2"),
    "health flapping": (vitals(slot(), recent=(*ILL, *swapping("health"))), "5D", "health flapping", "P2"),
    "manifest flapping": (vitals(slot(), recent=swapping("remote")), "5D", "manifest flapping", "P2"),
    "operator": (vitals(slot(), recent=swapping("ops (uid 1000)")), "5D", "operator", "P2"),
    "failing again and again": (vitals(unserved("health-check", REFUSED), recent=FAILED), "5D", "failing", "P2"),
}
SAW = tuple(sample(-60.0 * minute, 100 + 150 * (minute % 5 == 0)) for minute in range(60, -1, -1))
STEP = tuple(sample(-60.0 * minute, 100 if minute > 40 else 400) for minute in range(100, -1, -1))
GROWN = tuple(sample(-60.0 * minute, 700 - 5 * minute, 140 - minute) for minute in range(100, -1, -1))
HEALTHY: dict[str, Vitals] = {
    "idle": vitals(),
    "without a daemon": vitals(slot(), process=None),
    "just swapped": vitals(slot(attempts=(attempt(),)), recent=swapping("ops (uid 1000)", 3)),
    "swapped often in an hour": vitals(slot(), recent=swapping("watch", 60, every=60.0)),
    "at the boundary": vitals(slot(), recent=swapping("watch", RAPID)),
    "waits for the garbage collector": vitals(slot(residues=(residue("referenced"),) * (REFERENCED - 1))),
    "many slots swapped once": vitals(
        *(slot(key=f"part-{number}") for number in range(40)),
        recent=tuple(happening("instance-activated", key=f"part-{number}") for number in range(40)),
    ),
    "99 instances without a limit": vitals(process=many(MANY - 1, memory_limit_bytes=None)),
    "small growth": vitals(process=growing(60.0)),
    "small share": vitals(process=growing(100.0, start=900.0)),
    "goes up and down": vitals(process=process(samples=SAW)),
    "grew once and stays": vitals(process=process(samples=STEP)),
    "grows with its instances": vitals(process=process(samples=GROWN)),
    "starts up": vitals(process=growing(800.0, minutes=2, started_at=at(-125))),
    "one sample": vitals(process=process(samples=(sample(-5, 100),))),
}


def found(fault: str) -> list[Finding]:
    return list(examine(FAULTS[fault][0]))


def first(*slots: SlotVital, **changed: Any) -> Finding:
    return next(iter(examine(vitals(*slots, **changed))))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_by_its_own_code_and_no_other(fault: str) -> None:
    assert [(one.code, one.variant, one.priority) for one in found(fault)] == [FAULTS[fault][1:]]


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_daemon_is_silent(name: str) -> None:
    assert list(examine(HEALTHY[name])) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_finding_says_what_was_seen_what_to_type_and_what_ends_it(fault: str) -> None:
    for one in found(fault):
        assert all([one.evidence, one.commands, one.confirm, *one.evidence, *one.commands, *one.confirm])


@pytest.mark.parametrize("fault", FAULTS)
def test_commands_can_be_typed(fault: str) -> None:
    assert untypeable(command for one in found(fault) for command in one.commands) == []


# 5A


def test_holder_of_a_lease_is_named() -> None:
    finding = found("held")[0]
    assert "memory adapter/cache#1: held by traffic, 2 leases, 12 min old" in finding.evidence
    assert any(line.startswith("# traffic: end the leases") for line in finding.commands)


def test_instances_that_could_not_be_closed_follow_from_their_cleanup() -> None:
    assert (found("not closed")[0].caused_by, found("held")[0].caused_by) == ("2D", "")


def test_failed_cleanups_are_counted() -> None:
    recent = (happening("cleanup-failed", error="RuntimeError: x"),) * 2
    told = "2 failed cleanups in the last 5 min, the last: RuntimeError: x"
    assert told in first(slot(residues=(HELD,)), recent=recent).evidence


# 5B


def test_growth_is_told_with_numbers_times_and_suspects() -> None:
    busiest = (("adapter/cache", 912), ("service/pricing", 3))
    evidence = first(process=growing(300.0, busiest=busiest)).evidence
    assert (
        evidence[0]
        == "100.0 MiB at 2026-03-04T13:32:11Z, 400.0 MiB at 2026-03-04T14:02:11Z: 10.0 MiB a minute for 30 min"
    )
    assert evidence[-1] == "suspects, the slots that are used most: adapter/cache (912 uses), service/pricing (3 uses)"


def test_fast_growth_is_found_within_minutes() -> None:
    samples = tuple(sample(-float(second), 700 - 2 * second) for second in range(180, -1, -1))
    fast = process(started_at=at(-310), recent_samples=samples, resident_bytes=700 << 20)
    assert first(process=fast).code == "5B"


def test_growth_of_the_last_window_only_is_found() -> None:
    level = [sample(-60.0 * minute, 100) for minute in range(300, 30, -1)]
    risen = growing(300.0)
    assert max(PACES[0].windows) > 300 * 60
    assert first(process=process(started_at=at(-30_000), samples=(*level, *risen.samples))).code == "5B"


def test_profiler_is_one_that_runs() -> None:
    assert "memray run --live-remote --live-port 8001 -m oneiric orchestrate" in found("growing")[0].commands


# 5C


def test_formula_stands_beside_what_was_measured_and_the_limit() -> None:
    told = "needed: 200 * 50 MB + 500 MB = 10500 MB (10.5 GB); measured: 90.0 MiB"
    assert found("too many")[0].evidence[1:3] == (told, "memory limit: 32.0 GiB")


def test_limit_to_set_is_typed_for_each_place() -> None:
    commands = found("too many")[0].commands
    assert "docker update --memory 12g oneiric" in commands
    assert any(line.startswith("kubectl patch deployment oneiric") for line in commands)


def test_missing_limit_is_a_finding_of_its_own_from_100_instances_on() -> None:
    findings = examine(vitals(process=many(MANY, memory_limit_bytes=None)))
    assert [(one.variant, one.priority) for one in findings] == [("", "P2"), ("no memory limit", "P3")]


# 5D


def test_file_that_changes_is_named_and_the_watch_paused() -> None:
    finding = found("file flapping")[0]
    assert "oneiric watch pause" in finding.commands
    assert any(line.startswith("settings/adapters.yml changed 20 times in the last 5 min") for line in finding.evidence)


def test_paused_watch_is_not_paused_again() -> None:
    paused = process(watch="paused")
    assert "oneiric watch pause" not in first(slot(), recent=swapping("watch"), process=paused).commands


def test_loop_that_pausing_the_watch_stopped_is_over() -> None:
    stopped = (*swapping("watch", every=10.0), happening("watch-paused", -8.0))
    assert list(examine(vitals(slot(), recent=stopped, process=process(watch="paused")))) == []


def test_loop_that_goes_on_although_the_watch_is_paused_is_found() -> None:
    going_on = (happening("watch-paused", -260.0), *swapping("ops (uid 1000)"))
    assert first(slot(), recent=going_on, process=process(watch="paused")).code == "5D"


def test_loop_that_ended_while_the_watch_was_paused_is_over_when_it_is_resumed() -> None:
    resumed = (*swapping("watch"), happening("watch-paused", -8.0), happening("watch-resumed", -2.0))
    assert list(examine(vitals(slot(), recent=resumed))) == []


def test_swaps_that_were_held_back_are_counted() -> None:
    recent = (*swapping("watch"), happening("swap-throttled"), happening("swap-throttled"))
    assert "held back 2 times by max_swaps_per_minute" in first(slot(), recent=recent).evidence


def test_activation_that_is_tried_again_and_again_follows_from_its_failure() -> None:
    assert found("failing again and again")[0].caused_by == "1C"


def test_old_instances_and_memory_that_grows_are_two_findings() -> None:
    assert [one.code for one in examine(vitals(slot(residues=(HELD,)), process=growing(300.0)))] == ["5A", "5B"]


# All rules together

EVERY = {
    f"{module.__name__.rpartition('_')[2]}: {name}": fault
    for module, faults in ((test_resolution, test_resolution.FAULTS), (test_swaps, test_swaps.FAULTS))
    for name, fault in faults.items()
} | {f"memory: {name}": fault for name, fault in FAULTS.items()}
# Whose cause another rule names, which therefore comes first.
CAUSES = {
    "memory: not closed": "2D",
    "memory: failing again and again": "1C",
    "resolution: manifest fails": "3A",
    "resolution: selection of the manifest": "3A",
}


@pytest.mark.parametrize("name", EVERY)
def test_first_of_all_findings_is_the_cause(name: str) -> None:
    seen, code, _variant, _priority = EVERY[name]
    assert examine_all(seen)[0].code == CAUSES.get(name, code)


@pytest.mark.parametrize("name", HEALTHY)
def test_no_rule_says_anything_of_a_healthy_daemon(name: str) -> None:
    assert examine_all(HEALTHY[name]) == ()


@given(SLOT_VITALS | ANY_VITALS)
def test_findings_are_ordered_causes_first_and_the_same_each_time(any_vitals: Vitals) -> None:
    findings = examine_all(any_vitals)
    assert findings == examine_all(any_vitals) == tuple(sorted(findings, key=Finding.order))
    assert len(set(findings)) == len(findings)


@given(SLOT_VITALS | ANY_VITALS)
def test_no_finding_lacks_evidence_commands_or_what_confirms_the_cure(any_vitals: Vitals) -> None:
    assert all(one.evidence and one.commands and one.confirm for one in examine_all(any_vitals))


def rising(seconds: int, to_mib: int, *, age: float) -> ProcessVital:
    """A process of *age* seconds that had 50 MiB until it began to grow, *seconds* ago."""
    samples = tuple(
        MemorySample(
            at=at(-second), resident_bytes=(50 + max(0, seconds - second) * (to_mib - 50) // seconds) << 20, instances=2
        )
        for second in range(int(age), -1, -1)
    )
    return process(started_at=at(-age), resident_bytes=to_mib << 20, recent_samples=samples)


def test_leak_that_fills_the_machine_in_a_minute_is_found_within_it() -> None:
    assert [one.code for one in examine(vitals(process=rising(25, 400, age=60)))] == ["5B"]


@pytest.mark.parametrize("subject", [rising(10, 400, age=12), rising(25, 150, age=60)], ids=["starts", "grows little"])
def test_fast_growth_that_may_be_a_start_is_no_leak(subject: ProcessVital) -> None:
    assert list(examine(vitals(process=subject))) == []
