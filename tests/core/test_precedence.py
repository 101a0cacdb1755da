"""The precedence rule, against a second spelling of it; and an explanation that never disagrees with the decision."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from oneiric import Candidate, NoCandidateError, Rank, Slot
from oneiric.core.resolution import Policy, Selection, near_misses, resolve
from tests.core.strategies import SLOT, offers, policies, registry_of


def offer(provider: str, **fields: Any) -> Candidate[Any]:
    return Candidate(**{"slot": SLOT, "provider": provider, "factory": "m:f", **fields})


def level(candidate: Candidate[Any], policy: Policy) -> int:
    """Environment by stack name > the candidate's own > the environment's default > 0."""
    named = {name: value for name, value in policy.stack_order.levels.items() if name != "default"}
    if candidate.stack in named:
        return named[candidate.stack]
    if candidate.stack_level is not None:
        return candidate.stack_level
    return policy.stack_order.levels.get("default", 0)


def brute_force(offered: list[Candidate[Any]], policy: Policy) -> Candidate[Any] | None:
    """Choose the winner the slow way: keep who beats or ties with everybody, by CONTRACTS section 3."""
    selection = policy.selections.get(SLOT)
    eligible = [
        c
        for c in offered
        if c.capabilities >= policy.capabilities.get(SLOT, frozenset())
        and not c.requires
        and (SLOT, c.provider) not in policy.barred
        and (selection is None or c.provider == selection.provider)
    ]
    best: Candidate[Any] | None = None
    for c in eligible:
        if best is None:
            best = c
            continue
        for mine, theirs in (
            (level(c, policy), level(best, policy)),
            (c.priority, best.priority),
            (Version(c.version), Version(best.version)),
        ):
            if mine != theirs:  # type: ignore[comparison-overlap]
                best = c if mine > theirs else best  # type: ignore[operator]
                break
        else:
            best = min(c, best, key=lambda x: (x.source, x.provider))
    return best


@given(offers(), policies)
def test_winner_is_the_one_the_documented_rule_names(offered: list[Candidate[Any]], policy: Policy) -> None:
    assert resolve(registry_of(offered), policy, SLOT).winner == brute_force(offered, policy)


@given(st.data(), offers(), policies)
def test_order_of_registration_never_changes_an_answer(
    data: st.DataObject, offered: list[Candidate[Any]], policy: Policy
) -> None:
    shuffled = data.draw(st.permutations(offered))
    assert resolve(registry_of(shuffled), policy, SLOT) == resolve(registry_of(offered), policy, SLOT)


@given(offers(), policies)
def test_winner_is_the_first_placing_and_the_only_active_one(offered: list[Candidate[Any]], policy: Policy) -> None:
    resolution = resolve(registry_of(offered), policy, SLOT)
    active = [placing.candidate for placing in resolution.placings if placing.verdict == "active"]
    assert active == ([resolution.winner] if resolution.winner else [])
    assert not active or resolution.placings[0].candidate == active[0]


@given(offers(), policies)
def test_every_candidate_has_exactly_one_verdict(offered: list[Candidate[Any]], policy: Policy) -> None:
    placings = resolve(registry_of(offered), policy, SLOT).placings
    assert sorted(p.candidate.source + p.candidate.provider for p in placings) == sorted(
        c.source + c.provider for c in offered
    )
    assert {p.verdict for p in placings} <= {"active", "shadowed", "rejected"}


@given(offers(), policies)
def test_rejected_candidates_are_the_ones_without_a_rank(offered: list[Candidate[Any]], policy: Policy) -> None:
    for placing in resolve(registry_of(offered), policy, SLOT).placings:
        assert (placing.verdict == "rejected") == (placing.rank is None)


@given(offers(), policies)
def test_reason_of_a_loser_is_the_first_field_that_differs(offered: list[Candidate[Any]], policy: Policy) -> None:
    resolution = resolve(registry_of(offered), policy, SLOT)
    if resolution.winner is None:
        return
    best = resolution.placings[0].rank
    assert best is not None
    for placing in resolution.placings[1:]:
        if placing.rank is None:
            continue
        differs = [name for name in Rank._fields if getattr(placing.rank, name) != getattr(best, name)]
        if not differs:
            assert (placing.tie, placing.reason.startswith("tie with ")) == (True, True)
        elif differs[0] == "selection":
            assert placing.reason == f"not the selection ({resolution.winner.provider})"
        else:
            mine, theirs = (getattr(rank, differs[0]) for rank in (placing.rank, best))
            assert placing.reason == f"{differs[0].replace('_', ' ')} {mine} < {theirs}"


@given(st.data(), offers(), policies)
def test_taking_a_loser_away_never_changes_the_winner(
    data: st.DataObject, offered: list[Candidate[Any]], policy: Policy
) -> None:
    winner = resolve(registry_of(offered), policy, SLOT).winner
    losers = [candidate for candidate in offered if candidate != winner]
    if losers:
        gone = data.draw(st.sampled_from(losers))
        left = [candidate for candidate in offered if candidate is not gone]
        assert resolve(registry_of(left), policy, SLOT).winner == winner


@given(offers(), policies)
def test_resolution_has_a_winner_or_a_failure(offered: list[Candidate[Any]], policy: Policy) -> None:
    resolution = resolve(registry_of(offered), policy, SLOT)
    assert (resolution.winner is None) != (resolution.failure is None)


@given(offers(), policies)
def test_explanation_names_every_candidate(offered: list[Candidate[Any]], policy: Policy) -> None:
    lines = str(resolve(registry_of(offered), policy, SLOT)).splitlines()
    for candidate in offered:
        assert any(candidate.provider in line and line.endswith(f"from {candidate.source}") for line in lines)


@given(offers(), policies)
def test_require_returns_the_winner_or_raises_with_the_explanation(
    offered: list[Candidate[Any]], policy: Policy
) -> None:
    resolution = resolve(registry_of(offered), policy, SLOT)
    if resolution.winner is not None:
        assert resolution.require() is resolution.winner
        return
    with pytest.raises(NoCandidateError) as caught:
        resolution.require()
    assert (caught.value.explanation, caught.value.reason) == (str(resolution), resolution.failure)


# The rule by example


@pytest.mark.parametrize(
    ("loser", "winner", "reason"),
    [
        ({"stack_level": 1, "priority": 9}, {"stack_level": 2}, "stack level 1 < 2"),
        ({"priority": 1, "version": "9"}, {"priority": 2, "version": "1"}, "priority 1 < 2"),
        ({"version": "1.9"}, {"version": "1.10"}, "version 1.9 < 1.10"),
        ({"version": "1.0rc1"}, {"version": "1.0"}, "version 1.0rc1 < 1.0"),
    ],
)
def test_larger_field_wins_and_is_the_reason(loser: Any, winner: Any, reason: str) -> None:
    resolution = resolve(registry_of([offer("zz", **winner), offer("aa", **loser)]), Policy(), SLOT)
    assert (resolution.require().provider, resolution.placings[1].reason) == ("zz", reason)


def test_full_tie_goes_to_the_smaller_source_then_provider() -> None:
    tied = [offer("a", source="y"), offer("b", source="x"), offer("c", source="x")]
    resolution = resolve(registry_of(tied), Policy(), SLOT)
    assert [p.candidate.provider for p in resolution.placings] == ["b", "c", "a"]


def test_full_tie_is_called_a_tie() -> None:
    resolution = resolve(registry_of([offer("a"), offer("b", version="0.0")]), Policy(), SLOT)
    assert [(p.tie, p.reason) for p in resolution.placings] == [
        (True, "tie, smaller (source, provider)"),
        (True, "tie with a, which has the smaller (source, provider)"),
    ]


def test_selection_beats_every_rank() -> None:
    policy = Policy(selections={SLOT: Selection("b", "settings", "settings/adapters.yml:1")})
    resolution = resolve(registry_of([offer("a", stack_level=99), offer("b")]), policy, SLOT)
    assert (resolution.require().provider, resolution.placings[0].reason) == (
        "b",
        "settings names b (settings/adapters.yml:1)",
    )


def test_argument_beats_the_selection() -> None:
    policy = Policy(selections={SLOT: Selection("b", "settings")})
    registry = registry_of([offer("a"), offer("b")])
    assert resolve(registry, policy, SLOT, provider="a").require().provider == "a"


def test_selection_of_nobody_shadows_everybody() -> None:
    policy = Policy(selections={SLOT: Selection("nobody", "settings")})
    resolution = resolve(registry_of([offer("a"), offer("b")]), policy, SLOT)
    assert (resolution.failure, {p.verdict for p in resolution.placings}) == ("all-shadowed", {"shadowed"})


def test_selection_of_a_rejected_provider_does_not_fall_back() -> None:
    policy = Policy(selections={SLOT: Selection("b", "settings")})
    resolution = resolve(registry_of([offer("a"), offer("b", requires=("nothing",))]), policy, SLOT)
    assert (resolution.winner, resolution.failure) == (None, "no-candidates")


def test_selection_of_a_rejected_provider_says_why_it_is_rejected() -> None:
    policy = Policy(selections={SLOT: Selection("b", "settings")})
    registry = registry_of([offer("a", requires=("other",)), offer("b", requires=("nothing",))])
    assert resolve(registry, policy, SLOT).summary.startswith("b is rejected: requires nothing: not installed")


def test_selection_matches_the_same_provider_of_any_source_by_rank() -> None:
    policy = Policy(selections={SLOT: Selection("a", "pin")})
    registry = registry_of([offer("a", source="x"), offer("a", source="y", priority=1)])
    assert resolve(registry, policy, SLOT).require().source == "y"


# Near misses


def test_slot_nobody_offers_for_names_what_is_spelt_like_it() -> None:
    registry = registry_of([offer("a"), offer("a", slot=Slot("adapter", "queue"))])
    assert near_misses(registry, Slot("adapter", "cahce")) == ("adapter/cache",)


def test_slot_nobody_offers_for_names_its_key_in_other_domains() -> None:
    registry = registry_of([offer("a", slot=Slot("service", "status"))])
    assert resolve(registry, Policy(), Slot("adapter", "status")).near_misses == ("service/status",)


def test_slot_with_candidates_has_no_near_misses() -> None:
    registry = registry_of([offer("a"), offer("b", slot=Slot("adapter", "caches"))])
    assert resolve(registry, Policy(), SLOT).near_misses == ()


def test_slot_nobody_offers_for_says_where_candidates_come_from() -> None:
    assert "entry-point group oneiric.tasks" in str(resolve(registry_of([]), Policy(), Slot("task", "resize")))
