"""Runbook 2: a new instance does not take over, or the old one cannot be closed.

A hook that fails belongs to the scenario next to it: health checks when it says no, factories when it cannot be
imported, timeouts when it takes too long; the variant says ``hook``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor.ailments import wards_of
from oneiric.doctor.failures import (
    AFTER_SWAP,
    RESTART,
    Failure,
    bound_of,
    disk_of,
    factory_in,
    failure_of,
    is_recent,
    longer,
    missing_in,
    of_slot,
    place,
    settings_file,
    swap_to,
    told,
)
from oneiric.doctor.finding import Finding
from oneiric.doctor.gather import gathered
from oneiric.doctor.vitals import Happening, Residue, SlotVital, Vitals
from oneiric.doctor.waits import allow_more, seen, variant_of
from oneiric.doctor.wording import app_file, cut, instant, span

SLOW: Final = 10.0
"""Seconds that a swap may take: the boundary of OneiricSwapDurationHigh."""
_UNCLEANED: Final = "cleanup failed: "
_CODE: Final = ("SyntaxError", "IndentationError", "TabError")
_SHOWN: Final = 5


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield the swaps that fail, and what they left behind."""
    yield from gathered(_failing(vitals))
    yield from gathered(_uncleaned(vitals))


def _failing(vitals: Vitals) -> Iterator[Finding]:
    for slot in vitals.slots:
        failure = failure_of(vitals, slot)
        if failure is None:
            yield from _slow(vitals, slot)
        elif failure.code == "2A":
            yield _unhealthy(vitals, failure)
        elif failure.code == "2B":
            yield _unbuilt(vitals, failure)
        elif failure.code == "2C":
            yield _late(vitals, failure)


def _retry(failure: Failure) -> tuple[str, ...]:
    return (swap_to(failure.slot, failure.provider, "--dry-run"), swap_to(failure.slot, failure.provider))


def _confirm(failure: Failure) -> tuple[str, ...]:
    return (
        f'oneiric status {place(failure.slot)}: state="ready", provider="{failure.provider}"',
        'log: event="swap-complete"' if failure.serving else 'log: event="instance-activated"',
        "PromQL: oneiric:lifecycle_swap_success_rate:5m > 0.95",
    )


def _hook_cure(vitals: Vitals, failure: Failure) -> str:
    file = settings_file(vitals, failure.slot)
    return f"# correct the hook that the error names, or take it out of {file}: slots: {failure.slot.key}:"


# 2A


def _unhealthy(vitals: Vitals, failure: Failure) -> Finding:
    slot, provider = failure.slot, failure.provider
    missing = missing_in(failure.error)
    file = settings_file(vitals, slot)
    cure: tuple[str, ...]
    if failure.reason == "hook":
        variant, title = "hook", "a swap hook refuses the new instance"
        cure = (_hook_cure(vitals, failure),)
    elif missing is not None:
        variant, title = "dependency missing", "a new instance fails its health check: a module is not installed"
        cure = (f"uv pip install {missing.distribution}", RESTART)
    else:
        variant, title = "", "a new instance fails its health check and does not take over"
        cure = (
            f"# {file}: correct provider_settings of {provider}: address, port, credentials",
            f"# see that what {provider} connects to answers from this host, as redis-cli PING does for Redis",
            f"# {app_file(vitals)}: raise lifecycle.health_timeout only if the probe is right and slow",
            "oneiric config check",
        )
    ill = provider in {ward.provider for ward in wards_of(slot)}
    return Finding(
        code="2A",
        priority=failure.priority,
        title=title,
        subject=str(slot),
        variant=variant,
        evidence=told(vitals, failure),
        commands=(f"oneiric status {place(slot)}", *cure, *_retry(failure)),
        confirm=_confirm(failure),
        caused_by=disk_of(vitals, failure.error) or ("1C" if ill else ""),
    )


# 2B


def _unbuilt(vitals: Vitals, failure: Failure) -> Finding:
    variant, title, cure = _mistake(vitals, failure)
    return Finding(
        code="2B",
        priority=failure.priority,
        title=title,
        subject=str(failure.slot),
        variant=variant,
        evidence=told(vitals, failure),
        commands=(f"oneiric status {place(failure.slot)}", *cure, *_retry(failure)),
        confirm=_confirm(failure),
        caused_by=disk_of(vitals, failure.error),
    )


def _mistake(vitals: Vitals, failure: Failure) -> tuple[str, str, tuple[str, ...]]:
    """Return why nothing was built: the variant, in words, and what to type."""
    error, file = failure.error, settings_file(vitals, failure.slot)
    if failure.reason == "hook":
        return "hook", "a swap hook cannot be imported", (_hook_cure(vitals, failure), "oneiric config check")
    if "ImportError" in error or error.startswith(_CODE) or "not something to call" in error:
        return _not_imported(failure, file)
    correct: tuple[str, ...] = (
        f"# {file}: correct provider_settings of {failure.provider} as the error says",
        "oneiric config check",
    )
    if "provider_settings" in error:
        return "settings", "the settings of a provider do not fit its factory", correct
    if failure.is_network:
        correct = (f"# see that what {failure.provider} connects to answers from this host", *correct)
    return "constructor", "a factory raises: its settings or what it needs are not right", correct


def _not_imported(failure: Failure, file: str) -> tuple[str, str, tuple[str, ...]]:
    """Tell a factory that is not where its candidate says from one that lacks a module, and from one that is broken."""
    error = failure.error
    missing, factory = missing_in(error), factory_in(error)
    module = factory[0] if factory is not None else ""
    if missing is not None and f"{module}.".startswith(f"{missing.module}."):
        package = f"or install the package that has {missing.module}: uv pip install -e its directory"
        return _wrong_path(failure, file, package)
    if missing is not None:
        cure = (f'python -c "import {missing.module}"', f"uv pip install {missing.distribution}", RESTART)
        return "dependency missing", f"a factory needs the module {missing.module}, which is not installed", cure
    if "' has no '" in error or "not something to call" in error:
        return _wrong_path(failure, file, "or the attribute in that module")
    look = (f'python -c "import {module}"',) if module else ()
    cure = (*look, "# correct that module, or install the version of the package that it was written for", RESTART)
    return "code", "the module of a factory cannot be imported", cure


def _wrong_path(failure: Failure, file: str, otherwise: str) -> tuple[str, str, tuple[str, ...]]:
    factory = factory_in(failure.error)
    module, attribute = factory if factory is not None else ("", "")
    name = attribute.partition(".")[0]
    test = (f'python -c "from {module} import {name}; print({attribute})"',) if module else ()
    where = f"# {file}: correct the factory of {failure.provider} below candidates, {otherwise}"
    cure = (*test, where, "oneiric config check", f"# after an installation: {RESTART}")
    return "factory path", "the factory that a candidate names is not there", cure


# 2C


def _late(vitals: Vitals, failure: Failure) -> Finding:
    slot, variant = failure.slot, variant_of(failure)
    cure = list(allow_more(vitals, failure))
    if variant == "drain":
        cure.insert(0, f"oneiric status {place(slot)} --json")
        cure.insert(1, "# end the leases that are held, as leaks and leases there name them")
    elif variant == "hook":
        cure.insert(0, _hook_cure(vitals, failure))
    return Finding(
        code="2C",
        priority=failure.priority,
        title="a swap takes longer than it may",
        subject=str(slot),
        variant=variant,
        evidence=(*told(vitals, failure), *seen(vitals, failure)),
        commands=(f"oneiric status {place(slot)}", *cure, "oneiric config check", *_retry(failure)),
        confirm=_confirm(failure),
    )


def _slow(vitals: Vitals, slot: SlotVital) -> Iterator[Finding]:
    """Yield a swap that succeeded and took long."""
    slow = [one for one in slot.attempts if is_recent(vitals, one.at) and one.duration > SLOW]
    if not slow:
        return
    last = max(slow, key=lambda one: one.duration)
    yield Finding(
        code="2C",
        priority="P1",
        title="swaps succeed and take long",
        subject=str(slot),
        variant="slow",
        evidence=(
            f"{last.provider} took {span(last.duration)} at {instant(last.at)}; up to {SLOW:g} s is usual",
            f"{plural(len(slow), 'swap')} of more than {SLOW:g} s in the last 5 min",
        ),
        commands=(
            f"oneiric status {place(slot)}",
            f"# see what {last.provider} waits for when it is built and probed, and make that quicker",
            f"# {app_file(vitals)}: lifecycle: {{activation_timeout: {longer(last.duration)}}} or more leaves room",
        ),
        confirm=(
            "PromQL: histogram_quantile(0.95, rate(oneiric_lifecycle_swap_duration_ms_bucket[5m])) < 10000",
            f"oneiric status {place(slot)}: last swap in less than 10 s",
        ),
    )


# 2D


def _uncleaned(vitals: Vitals) -> Iterator[Finding]:
    for slot in vitals.slots:
        failed = of_slot(vitals, slot, "cleanup-failed")
        left = tuple(one for one in slot.residues if one.kind == "not-closed")
        if failed or left or _complaint(slot):
            yield _unclosed(vitals, slot, failed, left)


def _complaint(slot: SlotVital) -> str:
    """Return what the slot says of an old instance that could not be closed."""
    is_of_cleanup = slot.last_error.startswith(AFTER_SWAP) and _UNCLEANED in slot.last_error
    return slot.last_error.removeprefix(AFTER_SWAP) if is_of_cleanup else ""


def _unclosed(vitals: Vitals, slot: SlotVital, failed: tuple[Happening, ...], left: tuple[Residue, ...]) -> Finding:
    facts = [
        f"{one.fields.get('provider', '')} {one.fields.get('instance_id', '')}: cleanup failed at {instant(one.at)}: "
        f"{cut(str(one.fields.get('error', '')))}"
        for one in failed[-_SHOWN:]
    ]
    facts += [f"{one.provider} {one.instance_id}: not closed, {span(one.age)} old" for one in left[:_SHOWN]]
    complaint = _complaint(slot)
    if complaint:
        facts.append(f"the last error: {cut(complaint)}")
    if slot.serving:
        facts.append(f"{slot.serving} serves")
    suspect, error = complaint.partition(_UNCLEANED)[0].rstrip(": "), complaint
    if failed:
        suspect, error = (str(failed[-1].fields.get(name, "")) for name in ("provider", "error"))
    elif left:
        suspect = left[-1].provider
    bound = bound_of(error)
    longer_wait = (
        (f"# {app_file(vitals)}: lifecycle: {{cleanup_timeout: {longer(bound)}}}, if closing is right and only slow",)
        if bound is not None
        else ()
    )
    force = (swap_to(slot, slot.serving, "--force"),) if slot.serving else ()
    return Finding(
        code="2D",
        priority="P2",
        title="an old instance could not be closed; the new one serves" if slot.serving else "cleanup failed",
        subject=str(slot),
        variant="timeout" if bound is not None else "",
        evidence=tuple(facts),
        commands=(
            f"oneiric status {place(slot)}",
            f"# what {suspect or 'it'} left open outside, as connections or files: close it by hand if that is safe",
            *longer_wait,
            *(("# to swap, and pin, without waiting for a cleanup:", *force) if force else ()),
            f"# correct how {suspect or 'the provider'} closes: aclose(), cleanup() or close() must end and not raise",
            RESTART,
        ),
        confirm=(
            f"oneiric status {place(slot)}: leaked 0, no last error",
            "PromQL: increase(oneiric_lifecycle_cleanup_failures_total[5m]) == 0",
            "PromQL: oneiric:system_active_instances_total:5m is what it was",
        ),
        caused_by=disk_of(vitals, error),
    )
