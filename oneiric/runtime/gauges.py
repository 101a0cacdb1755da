"""What is true now, as readings: counted when someone looks, from the same values that decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from oneiric.core.candidate import Slot
from oneiric.core.domain import DOMAINS
from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy, Resolution, resolve
from oneiric.core.states import Activity
from oneiric.lifecycle.live import LiveSlot
from oneiric.observability.meters import Sample
from oneiric.plugins.discovery import Plugin

_STATES = ("active", "shadowed", "rejected")
Ranking = tuple[tuple[Sample, ...], set[Slot[Any]]]
"""How many candidates there are, and the slots that one of them may fill."""


def candidate_gauges(
    registry: Registry, policy: Policy, known: Mapping[Slot[Any], Resolution]
) -> tuple[tuple[Sample, ...], set[Slot[Any]]]:
    """Return how many candidates there are, by domain and verdict; ranks every slot that is not among *known*."""
    verdicts: Counter[tuple[str, str]] = Counter()
    filled: set[Slot[Any]] = set()
    for slot in registry.by_slot:
        resolution = known.get(slot) or resolve(registry, policy, slot)
        if resolution.winner is not None:
            filled.add(slot)
        for placing in resolution.placings:
            verdicts[slot.domain, placing.verdict] += 1
    samples = tuple(
        Sample("oneiric_candidates", (domain, state), verdicts[domain, state])
        for domain in DOMAINS
        for state in _STATES
    )
    return samples, filled


def wish_gauges(policy: Policy, unfilled: Iterable[Slot[Any]]) -> Iterator[Sample]:
    """Yield how many keys are configured, and how many slots somebody wants and nobody may fill, by domain."""
    expected = Counter(slot.domain for slot in policy.selections)
    missing = Counter(slot.domain for slot in unfilled)
    for domain in DOMAINS:
        yield Sample("oneiric_candidates_expected", (domain,), expected[domain])
        yield Sample("oneiric_slots_unfilled", (domain,), missing[domain])


def slot_gauges(slots: Iterable[LiveSlot], leases: Mapping[str, int]) -> Iterator[Sample]:
    """Yield what serves and what is stopped, by domain; *leases* are those held, by domain."""
    active: Counter[str] = Counter()
    stopped: Counter[tuple[str, str]] = Counter()
    for live in slots:
        domain = live.slot.domain
        active[domain] += (live.current is not None) + (live.pooled is not None)
        if live.activity is not Activity.OPEN:
            stopped[domain, live.activity.value] += 1
    for domain in DOMAINS:
        yield Sample("oneiric_lifecycle_active_instances", (domain,), active[domain])
        yield Sample("oneiric_lifecycle_leases", (domain,), leases.get(domain, 0))
        for activity in (Activity.PAUSED, Activity.DRAINING):
            number = stopped[domain, activity.value]
            yield Sample("oneiric_activity_components", (domain, activity.value), number)


def plugin_gauges(plugins: Iterable[Plugin]) -> Iterator[Sample]:
    """Yield how many plugins were loaded and how many kept out."""
    counted = Counter("failed" if plugin.error else "loaded" for plugin in plugins)
    for state in ("loaded", "failed"):
        yield Sample("oneiric_plugins", (state,), counted[state])
