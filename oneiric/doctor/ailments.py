"""Runbook 1, scenario C: a slot has candidates, and what they build is not well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor.failures import (
    RESTART,
    Failure,
    disk_of,
    failure_of,
    missing_in,
    of_slot,
    place,
    settings_file,
    swap_to,
    told,
)
from oneiric.doctor.finding import Finding, Priority
from oneiric.doctor.vitals import Offer, SlotVital, Vitals
from oneiric.doctor.waits import allow_more, variant_of
from oneiric.doctor.wording import cut, instant

QUARANTINED: Final = "quarantined since "
"""How the reason begins for which a provider in quarantine is rejected."""


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield the slots whose providers are not well."""
    for slot in vitals.slots:
        failure = failure_of(vitals, slot)
        if failure is not None and failure.code != "1C":
            failure = None
        wards = wards_of(slot)
        if failure is not None or wards or slot.health:
            yield _ill(vitals, slot, failure, wards)


def wards_of(slot: SlotVital) -> tuple[Offer, ...]:
    """Return who is in quarantine of a slot that somebody wants."""
    if not (slot.wanted or slot.failure):
        return ()
    return tuple(one for one in slot.offers if one.verdict == "rejected" and one.reason.startswith(QUARANTINED))


def _ill(vitals: Vitals, slot: SlotVital, failure: Failure | None, wards: tuple[Offer, ...]) -> Finding:
    suspect = wards[0].provider if wards else failure.provider if failure is not None else slot.serving or slot.winner
    errors = (*(ward.reason for ward in wards), slot.health, failure.error if failure is not None else "")
    error = next(filter(None, errors))
    missing = missing_in(error)
    variant = ""
    if missing is not None:
        variant = "dependency missing"
    elif wards:
        variant = "quarantined"
    elif failure is not None:
        variant = variant_of(failure)
    return Finding(
        code="1C",
        priority=_gravity(vitals, slot, failure),
        title=_title(slot, failure, wards),
        subject=str(slot),
        variant=variant,
        evidence=tuple(_seen(vitals, slot, failure, wards)),
        commands=(
            f"oneiric status {place(slot)}",
            f"oneiric health --probe {place(slot)}",
            *((f"uv pip install {missing.distribution}", RESTART) if missing is not None else ()),
            *_cure(vitals, slot, suspect or "the provider", failure),
        ),
        confirm=(
            f"oneiric health --probe {place(slot)}: healthy, exit code 0",
            f'oneiric status {place(slot)}: state="ready"',
            "PromQL: increase(oneiric_lifecycle_health_check_failures_total[5m]) == 0",
        ),
        caused_by=disk_of(vitals, error),
    )


def _gravity(vitals: Vitals, slot: SlotVital, failure: Failure | None) -> Priority:
    serving = failure.serving if failure is not None else slot.serving
    is_unserved = not serving and vitals.process is not None
    if is_unserved or (failure is not None and not serving):
        return "P0"
    return "P1" if slot.failure == "unhealthy" else "P2"


def _title(slot: SlotVital, failure: Failure | None, wards: tuple[Offer, ...]) -> str:
    if failure is not None or not slot.serving:
        return "nobody serves: what is built does not pass its health check, or in time"
    if slot.health or any(ward.provider == slot.serving for ward in wards):
        return "what serves is not healthy"
    return "a provider is in quarantine and another one serves"


def _seen(vitals: Vitals, slot: SlotVital, failure: Failure | None, wards: tuple[Offer, ...]) -> Iterator[str]:
    for ward in wards:
        yield f"{ward.provider}: {cut(ward.reason)}"
    if slot.health:
        yield f"{slot.serving or slot.winner}: the last probe: {cut(slot.health)}"
    if failure is not None:
        yield from told(vitals, failure)
    elif slot.serving:
        yield f"{slot.serving} serves"
    else:
        yield f"nobody serves {slot}"
    failed = of_slot(vitals, slot, "health-check-failed")
    if failed:
        yield f"{plural(len(failed), 'failed health check')} in the last 5 min, the last at {instant(failed[-1].at)}"


def _cure(vitals: Vitals, slot: SlotVital, suspect: str, failure: Failure | None) -> Iterator[str]:
    """Yield what to correct, and how to have it tried again."""
    file = settings_file(vitals, slot)
    yield f"# {file}: correct provider_settings of {suspect}; see that what it connects to answers from this host"
    if failure is not None:
        yield from allow_more(vitals, failure)
    yield "oneiric config check"
    others = [one.provider for one in slot.offers if one.verdict != "rejected" and one.provider != suspect]
    if others and not slot.serving:
        yield f"# let {others[0]} serve meanwhile: {swap_to(slot, others[0])}; afterwards: oneiric unpin {place(slot)}"
    if slot.serving != suspect:
        yield swap_to(slot, suspect, "--dry-run")
    if not slot.serving:
        yield f"# once it is well the next caller has it built; by hand and pinned: {swap_to(slot, suspect)}"
