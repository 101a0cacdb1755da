"""Runbook 5, scenario D: a slot swaps again and again, and who has it do so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor.failures import RECENT, failure_of, is_recent, of_slot, place, settings_file, swap_to
from oneiric.doctor.finding import Finding
from oneiric.doctor.vitals import Happening, SlotVital, Vitals
from oneiric.doctor.wording import app_file, cut, instant, quoted, span

RAPID: Final = 20
"""Swaps of a slot in five minutes that are not too many: the boundary of OneiricRapidSwapping."""
_WARD: Final = ("candidate-quarantined", "candidate-released")
_SETTINGS: Final = ("watch", "SIGHUP", "settings")
_ITSELF: Final = (*_SETTINGS, "health", "start", "first use")
_SHOWN: Final = 5


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield the slots that swap too often. Pausing the watch is the cure: what was before that no longer counts."""
    paused = max((one.at for one in vitals.recent if one.event == "watch-paused"), default=None)
    for slot in vitals.slots:
        done, failed = (
            [one for one in of_slot(vitals, slot, event) if paused is None or one.at > paused]
            for event in ("instance-activated", "swap-failed")
        )
        kept = [one for one in slot.attempts if is_recent(vitals, one.at) and (paused is None or one.at > paused)]
        number = max(len(done) + len(failed), len(kept))
        if number > RAPID:
            yield _loop(vitals, slot, number, len(failed))


def _loop(vitals: Vitals, slot: SlotVital, number: int, failed: int) -> Finding:
    failure = failure_of(vitals, slot)
    variant, facts, cure = _cause(vitals, slot)
    if failure is not None and 2 * failed > number:
        variant, facts, cure = "failing", (f"{failed} of them failed",), (f"# first cure {failure.code}",)
    held_back = of_slot(vitals, slot, "swap-throttled")
    return Finding(
        code="5D",
        priority="P2",
        title="a slot swaps again and again",
        subject=str(slot),
        variant=variant,
        evidence=(
            f"{plural(number, 'attempt')} to swap in the last 5 min; up to {RAPID} are usual",
            *facts,
            *([f"held back {plural(len(held_back), 'time')} by max_swaps_per_minute"] if held_back else []),
        ),
        commands=(f"oneiric status {place(slot)}", *cure),
        confirm=(
            "PromQL: sum(increase(oneiric_lifecycle_swap_total[5m])) by (domain, key) <= 20",
            f"oneiric status {place(slot)}: the last swap stays the last",
            "PromQL: oneiric:system_active_instances_total:5m < 100",
        ),
        caused_by=failure.code if variant == "failing" and failure is not None else "",
    )


def _cause(vitals: Vitals, slot: SlotVital) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return who has the slot swap: the variant, what shows it, and what to type."""
    by = Counter(str(one.fields.get("by", "")) for one in of_slot(vitals, slot, "swap-complete"))
    most = max(by, key=lambda name: by[name], default="")
    wards = of_slot(vitals, slot, *_WARD)
    changes = [one for one in vitals.since(RECENT, "config-changed") if one.fields.get("domain") == slot.domain]
    asked = (
        f"{by[most]} of {plural(sum(by.values()), 'swap')} by {cut(most)}" if most else "the log does not say by whom"
    )
    if most == "health" or (not most and len(wards) > len(changes)):
        return "health flapping", (asked, *_flapping(wards)), _steady(slot)
    if most in _SETTINGS or (not most and changes):
        return "config flapping", (asked, *_changes(changes)), _watching(vitals, slot, changes)
    if most and most not in _ITSELF:
        return _outsider(slot, most, asked)
    return "", (asked,), (f"oneiric explain {quoted(slot.key)} --domain {quoted(slot.domain)}", "oneiric watch pause")


def _changes(changes: list[Happening]) -> Iterator[str]:
    files = Counter(str(one.fields.get("file", "")) for one in changes)
    for file, times in files.most_common(_SHOWN):
        last = next(one.at for one in reversed(changes) if one.fields.get("file", "") == file or not file)
        yield f"{cut(file)} changed {plural(times, 'time')} in the last 5 min, the last time at {instant(last)}"
    if len(changes) > 1:
        apart = (changes[-1].at - changes[0].at).total_seconds() / (len(changes) - 1)
        yield f"one change every {span(max(0.0, apart))}"


def _watching(vitals: Vitals, slot: SlotVital, changes: list[Happening]) -> tuple[str, ...]:
    files = Counter(str(one.fields.get("file", "")) for one in changes)
    file = cut(files.most_common(1)[0][0]) if files else settings_file(vitals, slot)
    paused = () if vitals.process is not None and vitals.process.watch == "paused" else ("oneiric watch pause",)
    return (
        *paused,
        f"# find what writes {file} again and again, and stop it; then make the file right",
        f"# {app_file(vitals)}: raise watch.debounce, or lower lifecycle.max_swaps_per_minute, if it is meant to be so",
        "oneiric config check",
        "oneiric watch resume",
    )


def _flapping(wards: tuple[Happening, ...]) -> Iterator[str]:
    told = Counter((str(one.fields.get("provider", "")), one.event) for one in wards)
    for (provider, event), times in told.most_common(_SHOWN):
        words = "put in quarantine" if event == _WARD[0] else "released from it"
        yield f"{provider} was {words} {plural(times, 'time')}"


def _steady(slot: SlotVital) -> tuple[str, ...]:
    others = [one.provider for one in slot.offers if one.verdict == "shadowed"] or [slot.serving]
    pin = (swap_to(slot, others[0]), "# that is pinned; once all are well: " + f"oneiric unpin {place(slot)}")
    return (f"oneiric health --probe {place(slot)}", *(pin if others[0] else ()))


def _outsider(slot: SlotVital, by: str, asked: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    if by in ("remote", "manifest"):
        cure = ("oneiric remote-status", "# ask the release engineer why the manifest changes so often")
        return "manifest flapping", (asked,), cure
    pause = f"oneiric pause {place(slot)} --note 'swaps without end'"
    stop = f"# stop the program or person that asks for it: {cut(by)}"
    return (
        "operator",
        (asked,),
        (stop, f"# if that cannot be found: {pause}; it ends with oneiric resume {place(slot)}"),
    )
