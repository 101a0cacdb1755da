"""A source is replaced whole, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oneiric import Candidate, Slot
from oneiric.core.registry import Registry
from oneiric.errors import ConfigError
from tests.core.strategies import SLOT, SLOTS, SOURCES, candidates, offers, registry_of


def offer(provider: str, slot: Slot[Any] = SLOT, **fields: Any) -> Candidate[Any]:
    return Candidate(slot=slot, provider=provider, factory="m:f", **fields)


def contents(registry: Registry) -> dict[Slot[Any], set[tuple[str, str]]]:
    return {slot: {(c.source, c.provider) for c in registry.candidates(slot)} for slot in registry.slots()}


def test_source_registered_a_thousand_times_leaves_the_registry_as_once() -> None:
    offered = [offer(provider, slot) for provider in ("a", "b") for slot in SLOTS]
    once = registry = Registry().with_source("code", offered)
    for _ in range(1000):
        registry = registry.with_source("code", offered)
    assert registry == once


def test_source_added_and_taken_away_leaves_the_registry_empty() -> None:
    assert Registry().with_source("code", [offer("a")]).without_source("code") == Registry()


def test_what_a_source_no_longer_lists_is_gone() -> None:
    registry = Registry().with_source("code", [offer("a"), offer("b", SLOTS[1])]).with_source("code", [offer("c")])
    assert contents(registry) == {SLOT: {("code", "c")}}


def test_source_without_candidates_is_no_source() -> None:
    assert Registry().with_source("code", []) == Registry()


@given(offers(SLOTS), st.lists(candidates(SLOTS), max_size=5, unique_by=lambda c: (c.slot, c.provider)))
def test_replacing_one_source_leaves_the_others_untouched(
    offered: list[Candidate[Any]], replacement: list[Candidate[Any]]
) -> None:
    registry = registry_of(offered)
    changed = registry.with_source("code", replacement)
    for source in set(SOURCES) - {"code"}:
        assert changed.sources.get(source) == registry.sources.get(source)
        for slot in SLOTS:
            assert [c for c in changed.candidates(slot) if c.source == source] == [
                c for c in registry.candidates(slot) if c.source == source
            ]


def test_registered_candidates_carry_their_source() -> None:
    (candidate,) = Registry().with_source("plugin x", [offer("a", source="forged")]).candidates(SLOT)
    assert candidate.source == "plugin x"


@pytest.mark.parametrize("method", ["with_source", "with_added"])
def test_provider_offered_twice_at_once_is_refused_by_name(method: str) -> None:
    with pytest.raises(ConfigError, match="code: offers provider 'a' for adapter/cache twice"):
        getattr(Registry(), method)("code", [offer("a"), offer("b"), offer("a", priority=1)])


def test_provider_added_a_second_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Registry().with_source("code", [offer("a")]).with_added("code", [offer("a")])


def test_every_provider_offered_twice_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Registry().with_source("code", [offer("a"), offer("a"), offer("b"), offer("b")])
    assert len(caught.value.problems) == 2


def test_same_provider_may_be_offered_by_two_sources_and_for_two_slots() -> None:
    registry = Registry().with_source("x", [offer("a"), offer("a", SLOTS[1])]).with_source("y", [offer("a")])
    assert contents(registry) == {SLOT: {("x", "a"), ("y", "a")}, SLOTS[1]: {("x", "a")}}


def test_refused_registration_changes_nothing() -> None:
    registry = Registry().with_source("code", [offer("a")])
    before = contents(registry)
    with pytest.raises(ConfigError):
        registry.with_source("code", [offer("b"), offer("b")])
    assert contents(registry) == before


def test_earlier_registry_is_not_changed_by_a_later_one() -> None:
    registry = Registry().with_source("code", [offer("a")])
    registry.with_added("code", [offer("b")])
    assert contents(registry) == {SLOT: {("code", "a")}}


def test_registry_cannot_be_written_to() -> None:
    registry = Registry().with_source("code", [offer("a")])
    with pytest.raises(TypeError):
        registry.by_slot[SLOT] = ()  # type: ignore[index]


def test_slots_are_listed_sorted_and_by_domain() -> None:
    registry = Registry().with_source("code", [offer("a", slot) for slot in reversed(SLOTS)])
    assert (list(registry.slots()), list(registry.slots("service"))) == (SLOTS, [SLOTS[2]])


Place = tuple[Slot[Any], str]


class RegistryModel(RuleBasedStateMachine):
    """A registry is a mapping from source to what it offers, and nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.model: dict[str, dict[Place, int]] = {}

    @rule(source=st.sampled_from(SOURCES), offered=st.lists(candidates(SLOTS), max_size=4))
    def replace(self, source: str, offered: list[Candidate[Any]]) -> None:
        self.change(source, offered, {})

    @rule(source=st.sampled_from(SOURCES), offered=st.lists(candidates(SLOTS), max_size=2))
    def add(self, source: str, offered: list[Candidate[Any]]) -> None:
        self.change(source, offered, self.model.get(source, {}))

    @rule(source=st.sampled_from(SOURCES))
    def take_away(self, source: str) -> None:
        self.registry = self.registry.without_source(source)
        self.model.pop(source, None)

    def change(self, source: str, offered: list[Candidate[Any]], known: dict[Place, int]) -> None:
        places = [*known, *((c.slot, c.provider) for c in offered)]
        change = self.registry.with_added if known else self.registry.with_source
        if len(set(places)) < len(places):
            with pytest.raises(ConfigError):
                change(source, offered)
            return
        self.registry = change(source, offered)
        self.model[source] = known | {(c.slot, c.provider): c.priority for c in offered}
        if not self.model[source]:
            del self.model[source]

    @invariant()
    def sources_are_those_of_the_model(self) -> None:
        assert {
            source: {(c.slot, c.provider): c.priority for c in offered}
            for source, offered in self.registry.sources.items()
        } == self.model

    @invariant()
    def index_by_slot_agrees_with_the_sources(self) -> None:
        by_source = sorted((c.slot, c.source, c.provider) for o in self.registry.sources.values() for c in o)
        by_slot = sorted((slot, c.source, c.provider) for slot, o in self.registry.by_slot.items() for c in o)
        assert by_slot == by_source
        assert all(self.registry.by_slot.values()), "a slot without candidates is not kept"


class TestRegistryModel(RegistryModel.TestCase):  # type: ignore[name-defined, misc]
    """The registry obeys the model."""

    settings = settings(max_examples=50, stateful_step_count=20)
