"""Which time limit was too short for an attempt, and what to set it to."""

from __future__ import annotations

from collections.abc import Iterator

from oneiric.doctor.failures import RESTART, Failure, longer, took
from oneiric.doctor.vitals import Vitals
from oneiric.doctor.wording import app_file, span


def setting_of(failure: Failure) -> str:
    """Return the setting of ``lifecycle`` that ended the attempt, "" when none did."""
    if failure.bound is None:
        return ""
    if "still held after" in failure.error:
        return "drain_timeout"
    if failure.reason == "hook":
        return "hook_timeout"
    return "health_timeout" if failure.reason == "health-check" else "activation_timeout"


def variant_of(failure: Failure) -> str:
    """Return the time limit in a word; ``stuck calls`` when earlier calls never ended."""
    if failure.is_stuck:
        return "stuck calls"
    return setting_of(failure).removesuffix("_timeout")


def needed(vitals: Vitals, failure: Failure) -> float | None:
    """Return how many seconds the factory really took: what it built arrived late and was closed."""
    if failure.at is None or setting_of(failure) != "activation_timeout":
        return None
    for one in vitals.recent:
        fields, slot = one.fields, failure.slot
        told = fields.get("domain"), fields.get("key"), fields.get("provider")
        is_late = one.event == "cleanup-started" and str(fields.get("instance_id", "")).endswith("-late")
        if is_late and told == (slot.domain, slot.key, failure.provider) and one.at >= failure.at:
            return (one.at - failure.at).total_seconds() + failure.duration
    return None


def seen(vitals: Vitals, failure: Failure) -> Iterator[str]:
    """Yield which limit it was, how long the attempt took, and how long such attempts took before."""
    if failure.bound is None:
        return
    yield f"lifecycle.{setting_of(failure)} is {failure.bound:g} s; the attempt took {span(failure.duration)}"
    late = needed(vitals, failure)
    if late is not None:
        yield f"what the factory built arrived after {span(late)}"
    durations = took(failure.slot, failure.provider)
    if durations:
        yield f"{failure.provider} was put in place before within {span(max(durations))}"


def allow_more(vitals: Vitals, failure: Failure) -> Iterator[str]:
    """Yield what to set so that it may take longer."""
    if failure.is_stuck:
        yield "# the provider: give every wait on the outside a timeout of its own; what is stuck ends with the process"
        yield RESTART
    if failure.bound is None:
        return
    setting = setting_of(failure)
    late = needed(vitals, failure)
    seconds = longer(failure.bound, *took(failure.slot, failure.provider), *([] if late is None else [late]))
    yield (
        f"# {app_file(vitals)}: lifecycle: {{{setting}: {seconds}}} in place of {failure.bound:g}, "
        "if what it waits for is well and only slow"
    )
