"""Runbook 1: who should fill a slot and does not, found by its own code and variant, with what cures it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from oneiric.doctor.examine import examine as all_rules
from oneiric.doctor.finding import Finding
from oneiric.doctor.gather import LIMIT
from oneiric.doctor.resolution import examine
from oneiric.doctor.vitals import SlotVital, Vitals
from tests.doctor.commands import untypeable
from tests.doctor.remotes import at, disk, process, remote, wrong
from tests.doctor.remotes import failing as failing_remote
from tests.doctor.vitals import (
    LATE,
    NO_MODULE,
    NOT_WELL,
    PROBLEM,
    REFUSED,
    SLOT_VITALS,
    attempt,
    failing,
    happening,
    offer,
    plugin,
    slot,
    unfilled,
    unserved,
    vitals,
)

ASKED = happening("resolver-decision", outcome="failed", error="No candidate found for adapter/cache")
GONE = unfilled("no-candidates")
TYPO = unfilled("all-shadowed", selected="redsi", offers=(offer("redis", "shadowed"), offer("memory", "shadowed")))
NOBODY = unfilled("all-shadowed", selected="postgres", offers=(offer("memory", "shadowed"),))
WARD = offer("redis", "rejected", f"quarantined since 2026-03-04T14:00:00Z: {REFUSED}")
QUARANTINED = unfilled("unhealthy", offers=(WARD,), state="failed")
UNSET = offer("redis", "rejected", "provider_settings.redis.password: REDIS_PASSWORD is not set")
OLD = offer("redis", "rejected", "requires redis>=5: not installed; try: pip install 'redis>=5'")
LEVELS = (offer("memory", "shadowed"), offer("shared", "shadowed", stack_level=10))

FAULTS: dict[str, tuple[Vitals, str, str, str]] = {
    "nobody offers": (vitals(GONE), "1A", "", "P0"),
    "nobody offers what is asked for": (
        vitals(unfilled("no-candidates", wanted=False), recent=(ASKED,)),
        "1A",
        "",
        "P0",
    ),
    "an unknown slot is asked for": (vitals(recent=(ASKED,)), "1A", "", "P0"),
    "the old instance still serves": (vitals(unfilled("no-candidates", serving="redis")), "1A", "", "P1"),
    "nobody fits": (vitals(unfilled("no-candidates", offers=(OLD,))), "1A", "rejected", "P0"),
    "plugin failed": (vitals(GONE, plugins=(plugin(NO_MODULE),)), "1A", "plugin missing", "P0"),
    "plugin of the selection failed": (vitals(NOBODY, plugins=(plugin(NO_MODULE),)), "1A", "plugin missing", "P0"),
    "plugin failed unnoticed": (vitals(slot(), plugins=(plugin("RuntimeError: x"),)), "1A", "plugin missing", "P2"),
    "manifest fails": (vitals(GONE, remote=failing_remote("dns")), "1A", "remote stale", "P0"),
    "manifest never came": (vitals(GONE, remote=remote(last_success_at=None)), "1A", "remote stale", "P0"),
    "selection of the manifest": (vitals(NOBODY, remote=failing_remote("dns")), "1A", "remote stale", "P0"),
    "selection names nobody": (vitals(NOBODY), "1B", "", "P0"),
    "selection is mistyped": (vitals(TYPO), "1B", "", "P0"),
    "mistyped, and a plugin failed": (vitals(TYPO, plugins=(plugin(NO_MODULE),)), "1B", "", "P0"),
    "levels differ": (vitals(unfilled("all-shadowed", selected="myapp", offers=LEVELS)), "1B", "stack level", "P0"),
    "quarantined": (vitals(QUARANTINED), "1C", "quarantined", "P0"),
    "quarantined and serving": (
        vitals(unfilled("unhealthy", serving="redis", offers=(WARD,))),
        *("1C", "quarantined", "P1"),
    ),
    "quarantined, another serves": (
        vitals(slot(serving="memory", winner="memory", offers=(WARD,))),
        *("1C", "quarantined", "P2"),
    ),
    "not well": (vitals(slot(health=REFUSED)), "1C", "", "P2"),
    "activation refused": (vitals(unserved("health-check", REFUSED)), "1C", "", "P0"),
    "activation late": (vitals(unserved("timeout", LATE)), "1C", "activation", "P0"),
    "probe late": (vitals(unserved("health-check", NOT_WELL)), "1C", "health", "P0"),
    "probe lacks a module": (vitals(unserved("health-check", NO_MODULE)), "1C", "dependency missing", "P0"),
    "failed long ago, still so": (
        vitals(unserved("health-check", REFUSED, attempts=(attempt("failed", "health-check", REFUSED, seconds=-9e3),))),
        *("1C", "", "P0"),
    ),
    "settings invalid": (vitals(slot(), config_problems=(PROBLEM,)), "1D", "", "P1"),
    "settings invalid, no daemon": (vitals(process=None, config_problems=(PROBLEM,)), "1D", "", "P1"),
    "secret missing": (vitals(unfilled("config", offers=(UNSET,))), "1D", "provider settings", "P0"),
}
HEALTHY: dict[str, Vitals] = {
    "idle": vitals(),
    "busy": vitals(slot(leases=40)),
    "no daemon": vitals(slot(serving="", state="inactive", wanted=True), process=None),
    "just started": vitals(slot(state="activating", serving="", instances=0), process=process(started_at=at(-1))),
    "not yet used": vitals(slot(state="inactive", serving="", instances=0)),
    "just swapped": vitals(slot(attempts=(attempt(),))),
    "cured": vitals(slot(attempts=(attempt("failed", "health-check", REFUSED, seconds=-60), attempt()))),
    "pinned": vitals(slot(pinned=True, selection="pin names redis")),
    "paused": vitals(slot(state="paused")),
    "nobody wants it": vitals(unfilled("no-candidates", wanted=False, selected="")),
    "asked in vain an hour ago": vitals(recent=(happening("resolver-decision", -3600, outcome="failed"),)),
    "found since": vitals(slot(), recent=(ASKED, happening("resolver-decision", -1, outcome="success"))),
    "plugins": vitals(plugins=(plugin(), plugin(name="desk"))),
    "remote": vitals(slot(), remote=remote()),
    "swap failed, another serves": vitals(failing("health-check", REFUSED)),
}


def found(fault: str) -> list[Finding]:
    return list(examine(FAULTS[fault][0]))


def first(*slots: SlotVital, **changed: Any) -> Finding:
    return next(iter(examine(vitals(*slots, **changed))))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_by_its_own_code_and_no_other(fault: str) -> None:
    beside = [("1A", "plugin missing", "P2")] if fault == "mistyped, and a plugin failed" else []
    assert [(one.code, one.variant, one.priority) for one in found(fault)] == [FAULTS[fault][1:], *beside]


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


def test_missing_module_of_a_plugin_is_installed_by_its_distribution() -> None:
    error = "ImportError(ModuleNotFoundError): No module named 'yaml.nodes'"
    assert "uv pip install PyYAML" in first(GONE, plugins=(plugin(error),)).commands


def test_broken_plugin_is_installed_again() -> None:
    finding = first(plugins=(plugin("TypeError: x"),))
    assert "uv pip install --reinstall shop-plugin" in finding.commands
    assert "plugin shop of shop-plugin: TypeError: x" in finding.evidence


def test_slot_that_lacks_its_manifest_follows_from_the_network() -> None:
    finding = first(GONE, remote=failing_remote("dns", breaker="open"))
    assert (finding.caused_by, finding.commands[-1]) == ("3A", "oneiric remote-sync --force")


def test_slot_that_lacks_its_candidate_follows_from_the_file_that_cannot_be_read() -> None:
    invalid, missing = examine(vitals(GONE, config_problems=(PROBLEM,)))
    assert (invalid.code, missing.code, missing.caused_by) == ("1D", "1A", "1D")


def test_manifest_in_force_that_names_no_such_slot_is_told() -> None:
    told = "manifest version 7, accepted 2026-03-03T14:02:11Z, has no adapter/cache"
    assert told in first(GONE, remote=remote()).evidence


def test_near_misses_are_told() -> None:
    assert "close to it: adapter/cache2" in first(unfilled("no-candidates", near_misses=("adapter/cache2",))).evidence


def test_requirement_that_is_not_met_is_installed() -> None:
    assert "uv pip install 'redis>=5'" in first(unfilled("no-candidates", offers=(OLD,))).commands


def test_mistyped_selection_is_corrected_in_the_file_of_its_domain() -> None:
    assert "# settings/adapters.yml: selections: cache: redis in place of redsi" in first(TYPO).commands


def test_pin_that_names_nobody_is_taken_back() -> None:
    pinned = unfilled("all-shadowed", selected="redsi", pinned=True, offers=(offer("redis", "shadowed"),))
    assert "oneiric unpin --domain adapter --key cache" in first(pinned).commands


def test_stack_levels_are_shown_highest_first() -> None:
    levels = [line for line in found("levels differ")[0].evidence if "stack level" in line]
    assert [line.partition(":")[0] for line in levels] == ["shared", "memory"]


def test_failed_activation_is_told_with_number_time_and_error() -> None:
    failed = [attempt("failed", "health-check", REFUSED, seconds=-seconds) for seconds in (200, 100, 30)]
    told = first(unserved("health-check", REFUSED, attempts=tuple(failed))).evidence[0]
    assert (
        told
        == f"redis: 3 failed activations in the last 5 min, the last at 2026-03-04T14:01:41Z: health-check: {REFUSED}"
    )


def test_provider_settings_are_the_suspect_of_an_activation_that_fails() -> None:
    commands = first(unserved("health-check", REFUSED)).commands
    assert commands[:2] == (
        "oneiric status --domain adapter --key cache",
        "oneiric health --probe --domain adapter --key cache",
    )
    assert commands[2].startswith("# settings/adapters.yml: correct provider_settings of redis")


def test_late_activation_is_given_more_time() -> None:
    assert any("activation_timeout: 60}" in line for line in first(unserved("timeout", LATE)).commands)


def test_other_candidate_may_serve_meanwhile() -> None:
    told = "# let memory serve meanwhile: oneiric swap --domain adapter --key cache --provider memory"
    assert any(line.startswith(told) for line in first(unserved("health-check", REFUSED)).commands)


def test_provider_that_fails_for_want_of_disk_follows_from_the_disk() -> None:
    broken = unserved("health-check", "OperationalError: database or disk is full")
    assert first(broken, disks=(disk(free_bytes=0),)).caused_by == "disk"


def test_problems_of_settings_are_told_with_their_place() -> None:
    finding = first(config_problems=(PROBLEM, "ONEIRIC_STACK_ORDER: 'x' is not name:level"))
    assert finding.evidence[:2] == (PROBLEM, "ONEIRIC_STACK_ORDER: 'x' is not name:level")
    assert (finding.subject, finding.commands[0]) == ("settings/adapters.yml", "oneiric config check")


def test_many_slots_alike_are_told_as_one() -> None:
    slots = [unfilled("no-candidates", key=f"part-{number}") for number in range(LIMIT + 1)]
    findings = list(examine(vitals(*slots)))
    assert [one.subject for one in findings] == [f"adapter/part-0 and {LIMIT} others"]
    assert findings[0].evidence[-1].startswith(f"the same of {LIMIT} others: adapter/part-1, ")


def test_few_slots_alike_are_told_one_by_one() -> None:
    slots = [unfilled("no-candidates", key=f"part-{number}") for number in range(LIMIT)]
    assert len(list(examine(vitals(*slots)))) == LIMIT


@given(SLOT_VITALS)
def test_rules_never_raise_and_never_say_nothing(any_vitals: Vitals) -> None:
    assert all(one.evidence and one.commands and one.confirm for one in examine(any_vitals))


def test_slot_whose_artifact_was_wrong_in_the_cache_follows_from_that() -> None:
    missing = slot(winner="", serving="", failure="no-candidates", offers=(), state="inactive")
    found = all_rules(vitals(missing, remote=remote(evidence=(wrong(),))))
    assert [(one.code, one.caused_by) for one in found] == [("4A", ""), ("1A", "4A")]
