"""Runbook 2: swaps that fail, found by their own scenario and variant, with what cures them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from oneiric.doctor.failures import longer
from oneiric.doctor.finding import Finding
from oneiric.doctor.swaps import examine
from oneiric.doctor.vitals import SlotVital, Vitals
from tests.doctor.commands import untypeable
from tests.doctor.remotes import disk
from tests.doctor.vitals import (
    LATE,
    NO_MODULE,
    NOT_WELL,
    REFUSED,
    SLOT_VITALS,
    WHERE,
    attempt,
    failing,
    happening,
    offer,
    residue,
    slot,
    unserved,
    vitals,
)

HOOK = "(adapter/cache, before_swap hook shop.hooks:warm)"
HELD = "redis is exclusive, with 2 leases still held after 30 s"
STUCK = "adapter/cache redis: 3 earlier calls of it never ended; it is not called again"
CLOSING = "RuntimeError: the socket is gone"
UNSET = (
    "adapter/cache redis: provider_settings do not fit shop.cache:RedisCache: 'hots' is not a setting of the factory"
)
NO_PACKAGE = "ImportError(ModuleNotFoundError): No module named 'shop'"
NO_CLASS = "ImportError: module 'shop.cache' has no 'RedisCache'"
UNCLOSED = happening("cleanup-failed", provider="memory", instance_id="adapter/cache#1", error=CLOSING, aside=False)
OLD = (attempt("rollback", "health-check", REFUSED, seconds=-9000),)


def broken(error: str) -> SlotVital:
    return failing("factory", f"{error} {WHERE}")


def complaining(error: str) -> Vitals:
    return vitals(slot(last_error=f"after the swap: memory: {error}"))


FAULTS: dict[str, tuple[Vitals, str, str, str]] = {
    "refused": (vitals(failing("health-check", REFUSED)), "2A", "", "P1"),
    "refused long ago": (vitals(failing("health-check", REFUSED, attempts=OLD)), "2A", "", "P2"),
    "refused, nobody asks any more": (
        vitals(failing("health-check", REFUSED, attempts=OLD, winner="memory")),
        *("2A", "", "P3"),
    ),
    "only the last error tells": (vitals(failing("", REFUSED, attempts=())), "2A", "", "P2"),
    "no module to probe with": (vitals(failing("health-check", NO_MODULE)), "2A", "dependency missing", "P1"),
    "hook says no": (vitals(failing("hook", f"ValueError: cold {HOOK}")), "2A", "hook", "P1"),
    "hook not there": (vitals(failing("hook", f"{NO_MODULE} {HOOK}")), "2B", "hook", "P1"),
    "module missing": (vitals(broken(NO_MODULE)), "2B", "dependency missing", "P1"),
    "module missing, nobody serves": (
        vitals(unserved("factory", f"{NO_MODULE} {WHERE}")),
        *("2B", "dependency missing", "P0"),
    ),
    "package missing": (vitals(broken(NO_PACKAGE)), "2B", "factory path", "P1"),
    "class missing": (vitals(broken(NO_CLASS)), "2B", "factory path", "P1"),
    "no function": (
        vitals(broken("TypeError: shop.cache:X is of type int, not something to call")),
        *("2B", "factory path", "P1"),
    ),
    "only the last error tells of it": (
        vitals(failing("", f"{NO_CLASS} {WHERE}", attempts=())),
        *("2B", "factory path", "P2"),
    ),
    "no Python": (vitals(broken("SyntaxError: invalid syntax")), "2B", "code", "P1"),
    "settings do not fit": (vitals(failing("factory", UNSET)), "2B", "settings", "P1"),
    "constructor raises": (vitals(broken("ValueError: no such database")), "2B", "constructor", "P1"),
    "constructor connects in vain": (vitals(broken(REFUSED)), "2B", "constructor", "P1"),
    "factory slow": (vitals(failing("timeout", LATE)), "2C", "activation", "P1"),
    "probe slow": (vitals(failing("health-check", NOT_WELL)), "2C", "health", "P1"),
    "hook slow": (vitals(failing("hook", f"{NOT_WELL} {HOOK}")), "2C", "hook", "P1"),
    "drain slow": (vitals(failing("timeout", HELD)), "2C", "drain", "P1"),
    "stuck": (vitals(failing("timeout", STUCK)), "2C", "stuck calls", "P1"),
    "slow success": (vitals(slot(attempts=(attempt(duration=12.0),))), "2C", "slow", "P1"),
    "cleanup failed": (vitals(slot(), recent=(UNCLOSED,)), "2D", "", "P2"),
    "cleanup failed long ago": (vitals(slot(residues=(residue("not-closed"),))), "2D", "", "P2"),
    "cleanup failed, the slot says so": (complaining(f"cleanup failed: {CLOSING}"), "2D", "", "P2"),
    "cleanup slow": (complaining(f"cleanup failed: {NOT_WELL}"), "2D", "timeout", "P2"),
}
HEALTHY: dict[str, Vitals] = {
    "idle": vitals(),
    "busy": vitals(slot(leases=40)),
    "just swapped": vitals(slot(attempts=(attempt(duration=9.9),))),
    "swapped slowly an hour ago": vitals(slot(attempts=(attempt(duration=60.0, seconds=-3600),))),
    "retried with success": vitals(
        slot(attempts=(attempt("rollback", "health-check", REFUSED, seconds=-60), attempt()))
    ),
    "failed before the restart": vitals(slot(attempts=OLD)),
    "the last daemon failed": vitals(slot(serving="", state="inactive", attempts=OLD), process=None),
    "pinned": vitals(slot(pinned=True)),
    "paused": vitals(slot(state="paused")),
    "held by callers": complaining("1 lease still held after 30 s; closed when the last ends"),
    "nobody serves and nobody can": vitals(unserved("health-check", REFUSED)),
    "cleaned up again": vitals(slot(), recent=(happening("cleanup-failed", -400, provider="memory"),)),
}


def found(fault: str) -> list[Finding]:
    return list(examine(FAULTS[fault][0]))


def first(broken_slot: SlotVital, **changed: Any) -> Finding:
    return next(iter(examine(vitals(broken_slot, **changed))))


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


def test_failed_swap_is_told_with_number_time_error_and_who_serves() -> None:
    failed = tuple(attempt("rollback", "health-check", REFUSED, seconds=-seconds) for seconds in (400, 200, 100, 30))
    assert first(failing("health-check", REFUSED, attempts=failed)).evidence == (
        f"redis: 3 failed swaps in the last 5 min, the last at 2026-03-04T14:01:41Z: health-check: {REFUSED}",
        "memory still serves",
    )


def test_swap_is_tried_before_it_is_done() -> None:
    swap = "oneiric swap --domain adapter --key cache --provider redis"
    assert first(failing("health-check", REFUSED)).commands[-2:] == (f"{swap} --dry-run", swap)


def test_settings_of_the_new_provider_are_named() -> None:
    commands = first(failing("health-check", REFUSED), settings="/etc/shop").commands
    assert any(line.startswith("# /etc/shop/adapters.yml: correct provider_settings of redis") for line in commands)


@pytest.mark.parametrize("fault", ["no module to probe with", "module missing"])
def test_missing_dependency_is_installed_and_the_daemon_restarted(fault: str) -> None:
    commands = found(fault)[0].commands
    assert commands.index("uv pip install redis") < commands.index(
        "systemctl restart oneiric || docker restart oneiric"
    )


def test_factory_is_imported_by_hand() -> None:
    test = 'python -c "from shop.cache import RedisCache; print(RedisCache)"'
    assert test in found("package missing")[0].commands


def test_limit_is_doubled() -> None:
    told = "# settings/app.yml: lifecycle: {activation_timeout: 60} in place of 30"
    assert any(line.startswith(told) for line in found("factory slow")[0].commands)


def test_limit_allows_for_what_the_factory_really_took() -> None:
    late = happening("cleanup-started", -30, provider="redis", instance_id="adapter/cache#2-late")
    finding = first(
        failing("timeout", LATE, attempts=(attempt("failed", "timeout", LATE, duration=30.0, seconds=-100),)),
        recent=(late,),
    )
    assert "what the factory built arrived after 100 s" in finding.evidence
    assert any("activation_timeout: 180}" in line for line in finding.commands)


@pytest.mark.parametrize(
    ("bound", "seen", "wanted"),
    [
        (0.5, (), "1"),
        (5, (), "10"),
        (30, (38.0,), "60"),
        (30, (100.0,), "180"),
        (600, (), "1200"),
        (5, (float("nan"),), "10"),
    ],
)
def test_limit_is_a_round_number(bound: float, seen: tuple[float, ...], wanted: str) -> None:
    assert longer(bound, *seen) == wanted


def test_held_leases_are_looked_at_before_they_get_more_time() -> None:
    commands = found("drain slow")[0].commands
    assert "oneiric status --domain adapter --key cache --json" in commands[:2]
    assert any("drain_timeout: 60}" in line for line in commands)


def test_cleanup_is_bypassed_before_the_daemon_is_restarted() -> None:
    commands = found("cleanup failed")[0].commands
    force = "oneiric swap --domain adapter --key cache --provider redis --force"
    assert commands.index(force) < commands.index("systemctl restart oneiric || docker restart oneiric")


def test_failed_cleanup_is_told_with_its_instance_and_error() -> None:
    told = f"memory adapter/cache#1: cleanup failed at 2026-03-04T14:02:01Z: {CLOSING}"
    assert found("cleanup failed")[0].evidence[0] == told


def test_slow_cleanup_gets_more_time() -> None:
    assert any("cleanup_timeout: 10}" in line for line in found("cleanup slow")[0].commands)


def test_swap_to_a_provider_in_quarantine_follows_from_that() -> None:
    ward = offer("redis", "rejected", f"quarantined since 2026-03-04T14:00:00Z: {REFUSED}")
    assert first(failing("health-check", REFUSED, offers=(ward,))).caused_by == "1C"


def test_failed_swap_for_want_of_disk_follows_from_the_disk() -> None:
    error = "OSError: [Errno 28] No space left on device"
    assert first(broken(error), disks=(disk(free_bytes=0),)).caused_by == "disk"


def test_failed_swap_with_room_on_disk_follows_from_nothing() -> None:
    assert first(broken("OSError: [Errno 28] No space left on device")).caused_by == ""


def test_without_a_daemon_who_served_is_taken_from_the_history() -> None:
    failed = failing("health-check", REFUSED, serving="", state="inactive", last_error="")
    assert [one.code for one in examine(vitals(failed, process=None))] == ["2A"]


@given(SLOT_VITALS)
def test_rules_never_raise_and_never_say_nothing(any_vitals: Vitals) -> None:
    assert all(one.evidence and one.commands and one.confirm for one in examine(any_vitals))
