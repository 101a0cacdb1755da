"""Runbook 1: nobody fills a slot, what fills it is not well, or the settings cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor import ailments, delivery, invalid
from oneiric.doctor.failures import (
    RECENT,
    RESTART,
    missing_in,
    place,
    settings_file,
)
from oneiric.doctor.finding import Finding, Priority
from oneiric.doctor.gather import gathered
from oneiric.doctor.vitals import PluginVital, RemoteVital, SlotVital, Vitals
from oneiric.doctor.wording import ago, cut, instant, quoted

SUCCESS: Final = "PromQL: oneiric:resolution_success_rate_global:5m > 0.99"
_SHOWN: Final = 10
_START: Final = 300.0  # seconds for which a start that could not restore the manifest explains what is missing
_REQUIREMENT: Final = re.compile(
    r"requires ([A-Za-z0-9][A-Za-z0-9._\-\[\]<>=!~, ]*): (?:not installed|\S+ is installed)"
)


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield who should fill a slot and does not, and why."""
    yield from invalid.examine(vitals)
    unfilled = [_unfilled(vitals, slot) for slot in _wanting(vitals) if slot.failure != "unhealthy"]
    yield from gathered(unfilled)
    if not any(finding.variant == "plugin missing" for finding in unfilled):
        yield from _plugins(vitals)
    yield from gathered(ailments.examine(vitals))


def _wanting(vitals: Vitals) -> Iterator[SlotVital]:
    """Yield the slots that nobody may fill and that somebody wants: it is selected, pinned, in use or asked for."""
    asked = {}
    for one in vitals.since(RECENT, "resolver-decision"):
        asked[str(one.fields.get("domain", "")), str(one.fields.get("key", ""))] = one
    vain = {name: one for name, one in asked.items() if one.fields.get("outcome") == "failed"}
    for slot in vitals.slots:
        asked_in_vain = vain.pop((slot.domain, slot.key), None)
        if slot.failure and (slot.wanted or asked_in_vain is not None):
            yield slot
    for (domain, key), one in vain.items():
        if domain and key:
            error = str(one.fields.get("error", ""))
            yield SlotVital(domain=domain, key=key, failure="no-candidates", summary=error)


def _unfilled(vitals: Vitals, slot: SlotVital) -> Finding:
    if slot.failure == "config":
        return _unset(vitals, slot)
    if slot.failure == "all-shadowed":
        if not _meant(slot):
            elsewhere = _not_loaded(vitals, slot) or _not_delivered(vitals, slot)
            if elsewhere is not None:
                return elsewhere
        return _shadowed(vitals, slot)
    if slot.offers:
        return _rejected(vitals, slot)
    return _not_loaded(vitals, slot) or _not_delivered(vitals, slot) or _unknown(vitals, slot)


def _gravity(slot: SlotVital) -> Priority:
    return "P1" if slot.serving else "P0"


def _seen(vitals: Vitals, slot: SlotVital) -> tuple[str, ...]:
    """Return what is known of a slot without a candidate: why, who chose, who serves, how often it was asked for."""
    facts = [f"{slot}: {cut(slot.summary) or slot.failure}"]
    if slot.selection:
        facts.append(f"selection: {cut(slot.selection)}")
    failed = [
        one
        for one in vitals.since(RECENT, "resolver-decision")
        if (one.fields.get("domain"), one.fields.get("key"), one.fields.get("outcome"))
        == (slot.domain, slot.key, "failed")
    ]
    if failed:
        facts.append(
            f"{plural(len(failed), 'failed resolution')} logged in the last 5 min, last {instant(failed[-1].at)}"
        )
    facts.append(f"{slot.serving} still serves, until the next restart" if slot.serving else f"nobody serves {slot}")
    return tuple(facts)


def _solved(slot: SlotVital, *more: str) -> tuple[str, ...]:
    explained = f"oneiric explain {quoted(slot.key)} --domain {quoted(slot.domain)}: names who is active, exit code 0"
    return (explained, *more, 'log: event="resolver-decision" outcome="success"', SUCCESS)


def _explain(slot: SlotVital) -> str:
    return f"oneiric explain {quoted(slot.key)} --domain {quoted(slot.domain)}"


# 1A


def _not_loaded(vitals: Vitals, slot: SlotVital) -> Finding | None:
    """Return that a plugin, which may offer what is missing, failed to load."""
    failed = [plugin for plugin in vitals.plugins if plugin.error]
    if not failed:
        return None
    return Finding(
        code="1A",
        priority=_gravity(slot),
        title="nobody offers what fills a slot, and a plugin was kept out",
        subject=str(slot),
        variant="plugin missing",
        evidence=(*_seen(vitals, slot), *_words(failed)),
        commands=(f"oneiric list --domain {quoted(slot.domain)}", *_reload(failed), _explain(slot)),
        confirm=_solved(slot, "oneiric plugins: none failed"),
    )


def _plugins(vitals: Vitals) -> Iterator[Finding]:
    """Yield that plugins were kept out although no slot is known to lack them."""
    failed = [plugin for plugin in vitals.plugins if plugin.error]
    if failed:
        yield Finding(
            code="1A",
            priority="P2",
            title="a plugin was kept out: what it offers cannot be chosen",
            subject=", ".join(plugin.name for plugin in failed[:_SHOWN]),
            variant="plugin missing",
            evidence=_words(failed),
            commands=_reload(failed),
            confirm=("oneiric plugins: none failed", 'log: no event="plugin-failed" after the restart'),
        )


def _words(failed: list[PluginVital]) -> tuple[str, ...]:
    lines = [f"plugin {one.name} of {one.distribution}: {cut(one.error)}" for one in failed[:_SHOWN]]
    return (*lines, *([f"... and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []))


def _reload(failed: list[PluginVital]) -> tuple[str, ...]:
    """Return the commands that bring failed plugins back."""
    lacking = [missing_in(one.error) for one in failed]
    modules = dict.fromkeys(missing.distribution for missing in lacking if missing is not None)
    broken = dict.fromkeys(one.distribution for one, lacks in zip(failed, lacking, strict=True) if lacks is None)
    commands = ["oneiric plugins"]
    if modules:
        commands.append(f"uv pip install {' '.join(map(quoted, modules))}")
    if broken:
        commands.append(f"# correct {', '.join(filter(None, broken)) or 'the plugin'} as the error says; or install it")
        commands += [f"uv pip install --reinstall {quoted(name)}" for name in broken if name]
    return (*commands, RESTART)


def _not_delivered(vitals: Vitals, slot: SlotVital) -> Finding | None:
    """Return that the manifest, which may offer what is missing, does not arrive."""
    remote = vitals.remote
    if remote is None or not _is_wanting(vitals, remote):
        return None
    causes = [one.code for one in delivery.examine(vitals) if one.priority != "P3"]
    force = " --force" if remote.breaker == "open" else ""
    failures = plural(remote.consecutive_failures, "failed synchronisation")
    return Finding(
        code="1A",
        priority=_gravity(slot),
        title="nobody offers what fills a slot, and the manifest does not arrive",
        subject=str(slot),
        variant="remote stale",
        evidence=(
            *_seen(vitals, slot),
            f"manifest: {failures} in a row, last success {ago(remote.last_success_at, vitals.at)}"
            + (f": {cut(remote.last_error)}" if remote.last_error else ""),
        ),
        commands=(
            f"oneiric list --domain {quoted(slot.domain)}",
            "oneiric plugins",
            "oneiric remote-status",
            *((f"# first cure {causes[0]}",) if causes else ()),
            f"oneiric remote-sync{force}",
        ),
        confirm=_solved(slot, "oneiric remote-status: failures in a row 0, last success just now"),
        caused_by=causes[0] if causes else "",
    )


def _is_wanting(vitals: Vitals, remote: RemoteVital) -> bool:
    """Say whether what the manifest offers may be missing: it never came, fails to come, or was wrong in the cache."""
    fails = delivery.reason_of(remote) or remote.breaker == "open" or remote.last_success_at is None
    return bool(fails or remote.evidence or vitals.since(_START, "remote-restore-failed"))


def _unknown(vitals: Vitals, slot: SlotVital) -> Finding:
    """Return that nothing ever offered what fills a slot."""
    file, remote = settings_file(vitals, slot), vitals.remote
    facts = list(_seen(vitals, slot))
    hints = [f"# {file}: declare who fills {slot.key} below candidates, or install the package that offers it"]
    if slot.near_misses:
        near = ", ".join(slot.near_misses)
        facts.append(f"close to it: {near}")
        hints.insert(0, f"# {file}, or the program that asks: write {near} where {slot} is meant")
    if remote is not None and remote.manifest_version is not None:
        facts.append(
            f"manifest version {remote.manifest_version}, accepted {instant(remote.accepted_at)}, has no {slot}"
        )
        hints.append(f"# or have the release engineer publish a manifest that names {slot}; then oneiric remote-sync")
    return Finding(
        code="1A",
        priority=_gravity(slot),
        title="nobody offers what fills a slot",
        subject=str(slot),
        evidence=tuple(facts),
        commands=(
            f"oneiric list --domain {quoted(slot.domain)}",
            "oneiric plugins",
            *(("oneiric remote-status",) if remote is not None else ()),
            "oneiric config check",
            *hints,
            f"# settings are applied when they are saved; after an installation: {RESTART}",
            _explain(slot),
        ),
        confirm=_solved(slot),
        caused_by="1D" if invalid.is_in_bad_file(vitals, file) else "",
    )


def _rejected(vitals: Vitals, slot: SlotVital) -> Finding:
    """Return that whoever offers to fill a slot does not meet its requirements."""
    rejected = [offer for offer in slot.offers if offer.verdict == "rejected"]
    reasons = [f"{one.provider} is {one.verdict}: {cut(one.reason)}" for one in slot.offers[:_SHOWN]]
    lacking = dict.fromkeys(text.strip() for one in rejected for text in _REQUIREMENT.findall(one.reason))
    install = (f"uv pip install {' '.join(map(quoted, lacking))}", RESTART) if lacking else ()
    return Finding(
        code="1A",
        priority=_gravity(slot),
        title="everyone who offers to fill a slot is rejected",
        subject=str(slot),
        variant="rejected",
        evidence=(*_seen(vitals, slot), *reasons),
        commands=(
            _explain(slot),
            *install,
            f"# else: meet what the reasons name, or choose another provider in {settings_file(vitals, slot)}",
            _explain(slot),
        ),
        confirm=_solved(slot),
    )


# 1B


def _meant(slot: SlotVital) -> str:
    """Return the provider on offer whose name is close to the one selected, or ""."""
    close = get_close_matches(slot.selected, [offer.provider for offer in slot.offers], n=1)
    return close[0] if close else ""


def _shadowed(vitals: Vitals, slot: SlotVital) -> Finding:
    """Return that the selection names nobody, so that it shadows everybody.

    It is a matter of stack levels when the selection names a stack's source, or nobody like those on offer although
    their levels differ: whoever wrote it wants what precedence would choose.
    """
    meant, file = _meant(slot), settings_file(vitals, slot)
    offers = sorted(slot.offers, key=lambda one: -one.stack_level)
    levels = [f"{one.provider}: stack level {one.stack_level}, from {one.source}" for one in offers[:_SHOWN]]
    is_source = any(slot.selected and slot.selected in one.source for one in offers)
    by_level = not meant and (is_source or len({one.stack_level for one in offers}) > 1)
    names = ", ".join(dict.fromkeys(offer.provider for offer in offers[:_SHOWN])) or "one that is offered"
    if slot.pinned:
        cure = (f"oneiric unpin {place(slot)}",)
    elif meant:
        cure = (f"# {file}: selections: {slot.key}: {meant} in place of {slot.selected}",)
    else:
        cure = (f"# {file}: selections: {slot.key}: one of {names}; or without it the rank decides",)
    level = ('# by stack instead: ONEIRIC_STACK_ORDER="myapp:20,oneiric:10,default:0" for the daemon, and restart it',)
    return Finding(
        code="1B",
        priority=_gravity(slot),
        title="the selection names a provider that nobody offers, so all others are shadowed",
        subject=str(slot),
        variant="stack level" if by_level else "",
        evidence=(
            *_seen(vitals, slot),
            *(levels if by_level else [f"on offer: {names}"]),
            *([f"close to {slot.selected}: {meant}"] if meant else []),
        ),
        commands=(
            f"oneiric list --domain {quoted(slot.domain)} --show-shadowed",
            _explain(slot),
            *cure,
            *(level if by_level else ()),
            "oneiric config check",
            _explain(slot),
        ),
        confirm=_solved(slot),
    )


# 1D


def _unset(vitals: Vitals, slot: SlotVital) -> Finding:
    """Return that settings of the provider refer to what is not there."""
    barred = [offer for offer in slot.offers if offer.verdict == "rejected"]
    file = settings_file(vitals, slot)
    providers = ", ".join(dict.fromkeys(offer.provider for offer in barred)) or slot.selected or "the provider"
    return Finding(
        code="1D",
        priority=_gravity(slot),
        title="settings of a provider refer to what is not there",
        subject=str(slot),
        variant="provider settings",
        evidence=(*_seen(vitals, slot), *(f"{one.provider}: {cut(one.reason)}" for one in barred[:_SHOWN])),
        commands=(
            "oneiric config check",
            _explain(slot),
            f"# {file}: correct provider_settings of {providers}; or set the variable, or put the file there",
            f"# a variable is read at the start: {RESTART}",
            _explain(slot),
        ),
        confirm=_solved(slot),
    )
