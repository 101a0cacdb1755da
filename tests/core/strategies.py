"""Candidates, registries and policies as Hypothesis draws them: few names, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oneiric import Candidate, Slot
from oneiric.core.registry import Registry
from oneiric.core.resolution import Bar, Policy, Selection, StackOrder

SLOT: Slot[Any] = Slot("adapter", "cache")
SLOTS = [SLOT, Slot[Any]("adapter", "queue"), Slot[Any]("service", "cache")]
PROVIDERS = ["memory", "redis", "disk", "nobody"]
STACKS = ["default", "app", "lib"]
SOURCES = ["code", "plugin a", "plugin b"]
VERSIONS = ["0", "1.0", "1.0.0", "1.0rc1", "1.0.post1", "2", "10", "2!0"]

levels = st.none() | st.integers(-2, 2)


def candidates(slots: list[Slot[Any]] = SLOTS[:1]) -> st.SearchStrategy[Candidate[Any]]:
    return st.builds(
        Candidate,
        slot=st.sampled_from(slots),
        provider=st.sampled_from(PROVIDERS[:3]),
        factory=st.just("m:f"),
        stack=st.sampled_from(STACKS),
        stack_level=levels,
        priority=st.integers(-1, 1),
        version=st.sampled_from(VERSIONS),
        capabilities=st.frozensets(st.sampled_from(["ttl", "locks"])),
        requires=st.sampled_from([(), (), ("missing>=1",)]),
        source=st.sampled_from(SOURCES),
    )


def offers(slots: list[Slot[Any]] = SLOTS[:1]) -> st.SearchStrategy[list[Candidate[Any]]]:
    """Candidates of which no source offers a provider for a slot twice."""
    return st.lists(candidates(slots), max_size=8, unique_by=lambda c: (c.source, c.slot, c.provider))


policies = st.builds(
    Policy,
    selections=st.just({}) | st.sampled_from(PROVIDERS).map(lambda name: {SLOT: Selection(name, "settings")}),
    stack_order=st.dictionaries(st.sampled_from(STACKS), st.integers(-2, 2)).map(StackOrder),
    capabilities=st.just({}) | st.just({SLOT: frozenset({"ttl"})}),
    barred=st.just({}) | st.sampled_from(PROVIDERS[:3]).map(lambda name: {(SLOT, name): Bar("sick", "unhealthy")}),
)


def registry_of(offered: list[Candidate[Any]]) -> Registry:
    registry = Registry()
    for candidate in offered:
        registry = registry.with_added(candidate.source, [candidate])
    return registry
