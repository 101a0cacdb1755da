"""The plan after a change, and what a hot reload may not do to trust."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric import Candidate, Resolution, Slot
from oneiric.core.config import RemoteSettings, keep_trust
from oneiric.core.reconcile import Build, plan
from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy, resolve
from tests.core.strategies import SLOT, SLOTS, offers, registry_of


def build(provider: str, settings: str = "{}", **fields: Any) -> Build:
    return Build(Candidate(**{"slot": SLOT, "provider": provider, "factory": "m:f", **fields}), settings)


def wanting(new: Build | None) -> tuple[Resolution, Build | None]:
    registry = Registry().with_source("code", [new.candidate] if new else [])
    return resolve(registry, Policy(), SLOT), new


CASES: dict[str, tuple[Build | None, Build | None, tuple[str, str, str] | None]] = {
    "nothing changed": (build("a"), build("a"), None),
    "another provider": (build("a"), build("b"), ("swap", "b", "b (active)")),
    "other settings": (build("a"), build("a", "{1}"), ("swap", "a", "settings of a changed")),
    "another version": (
        build("a"), build("a", version="2"), ("swap", "a", "a is offered by another factory or version"),
    ),
    "another factory": (
        build("a"), build("a", factory="m:g"), ("swap", "a", "a is offered by another factory or version"),
    ),
    "another rank": (build("a"), build("a", priority=5, stack_level=9, source="elsewhere"), None),
    "nobody left": (build("a"), None, ("keep", "a", "no candidate is registered")),
    "asked for, failed before": (None, build("b"), ("activate", "b", "b (active)")),
    "asked for, nobody still": (None, None, None),
}  # fmt: skip


@pytest.mark.parametrize(("now", "then", "step"), CASES.values(), ids=CASES)
def test_plan_says_what_follows(now: Build | None, then: Build | None, step: Any) -> None:
    assert [tuple(change)[1:] for change in plan({SLOT: now}, {SLOT: wanting(then)})] == ([step] if step else [])


def test_plan_activates_an_eager_slot_that_is_not_live() -> None:
    (step,) = plan({}, {SLOT: wanting(build("a"))}, eager=[SLOT])
    assert (step.slot, step.action) == (SLOT, "activate")


def test_plan_leaves_a_slot_alone_that_nobody_asked_for() -> None:
    assert plan({}, {SLOT: wanting(build("a"))}) == ()


def wanted(offered: list[Candidate[Any]]) -> dict[Slot[Any], tuple[Resolution, Build | None]]:
    registry = registry_of(offered)
    answers = {slot: resolve(registry, Policy(), slot) for slot in SLOTS}
    return {slot: (answer, Build(answer.winner, "{}") if answer.winner else None) for slot, answer in answers.items()}


@given(offers(SLOTS), offers(SLOTS))
def test_plan_carried_out_leaves_nothing_to_do(before: list[Candidate[Any]], after: list[Candidate[Any]]) -> None:
    live = {slot: new for slot, (_, new) in wanted(before).items()}
    target = wanted(after)
    for step in plan(live, target, SLOTS):
        if step.action != "keep":
            live[step.slot] = target[step.slot][1]
    assert [step for step in plan(live, target, SLOTS) if step.action != "keep"] == []


@given(offers(SLOTS), offers(SLOTS))
def test_plan_never_takes_an_instance_away(before: list[Candidate[Any]], after: list[Candidate[Any]]) -> None:
    live = {slot: new for slot, (_, new) in wanted(before).items()}
    for step in plan(live, wanted(after), SLOTS):
        assert (step.action == "keep") == (wanted(after)[step.slot][1] is None)


@given(offers(SLOTS))
def test_plan_is_sorted_by_slot(after: list[Candidate[Any]]) -> None:
    steps = plan({}, wanted(after), reversed(SLOTS))
    assert [step.slot for step in steps] == sorted(step.slot for step in steps)


# Trust

names = st.lists(st.sampled_from(["k1", "k2", "k3"]), max_size=3, unique=True).map(tuple)
remotes = st.builds(
    RemoteSettings,
    public_key=st.none() | st.sampled_from(["k1", "k2"]),
    public_keys=names,
    signature_threshold=st.integers(1, 3),
    require_signature=st.booleans(),
    max_age=st.none() | st.sampled_from([60.0, 3600.0]),
    allowed_factories=names,
    allowed_hosts=names,
    allow_plain_http=st.booleans(),
    manifest_url=st.none() | st.just("https://example.org/m"),
    timeout=st.sampled_from([1.0, 30.0]),
)


def keys(remote: RemoteSettings) -> set[str]:
    return {key for key in (remote.public_key, *remote.public_keys) if key}


@given(remotes, remotes)
def test_reload_never_weakens_trust(running: RemoteSettings, proposed: RemoteSettings) -> None:
    now, _ = keep_trust(running, proposed)
    assert now.require_signature >= running.require_signature
    assert now.allow_plain_http <= running.allow_plain_http
    assert now.signature_threshold >= running.signature_threshold
    assert set(now.allowed_factories) <= set(running.allowed_factories)
    assert set(now.allowed_hosts) <= set(running.allowed_hosts)
    assert running.max_age is None or (now.max_age is not None and now.max_age <= running.max_age)


@given(remotes, remotes)
def test_reload_never_leaves_fewer_keys_than_the_threshold_asks_for(
    running: RemoteSettings, proposed: RemoteSettings
) -> None:
    now, _ = keep_trust(running, proposed)
    assert len(keys(now)) >= now.signature_threshold or keys(now) == keys(running) or not keys(running)


@given(remotes, remotes)
def test_reload_holds_back_no_more_than_it_says(running: RemoteSettings, proposed: RemoteSettings) -> None:
    now, held = keep_trust(running, proposed)
    for name in RemoteSettings.__struct_fields__:
        assert getattr(now, name) == getattr(running if name in held else proposed, name)


@given(remotes)
def test_reload_of_the_same_settings_holds_nothing_back_but_too_few_keys(running: RemoteSettings) -> None:
    now, held = keep_trust(running, running)
    assert (now, set(held) <= {"public_key", "public_keys"}) == (running, True)


@given(remotes, remotes)
def test_reload_twice_is_as_once(running: RemoteSettings, proposed: RemoteSettings) -> None:
    now, _ = keep_trust(running, proposed)
    assert keep_trust(now, proposed)[0] == now


@pytest.mark.parametrize(
    "stricter",
    [
        {"require_signature": True},
        {"signature_threshold": 2},
        {"allowed_hosts": ()},
        {"allowed_factories": ("k1",)},
        {"max_age": 10.0},
        {"allow_plain_http": False},
        {"public_keys": ("k3", "k2")},
    ],
)
def test_reload_may_add_strictness(stricter: dict[str, Any]) -> None:
    running = RemoteSettings(
        require_signature=False,
        public_keys=("k1", "k2"),
        allowed_hosts=("k1",),
        allowed_factories=("k1", "k2"),
        max_age=60.0,
        allow_plain_http=True,
    )
    proposed = msgspec.structs.replace(running, **stricter)
    assert keep_trust(running, proposed) == (proposed, ())
