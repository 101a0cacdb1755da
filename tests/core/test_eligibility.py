"""Who may fill a slot at all, and what is said about who may not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from oneiric import Candidate, Slot
from oneiric.core.registry import Registry
from oneiric.core.resolution import Bar, Host, Policy, StackOrder, resolve
from oneiric.errors import ConfigError

SLOT: Slot[Any] = Slot("adapter", "cache")
INSTALLED = {"redis": "5.0.1", "odd": "not-a-version", "rc": "2.0rc1"}
HOST = Host("3.11.7", "linux", INSTALLED.get)


def obstacle(*, policy: Policy | None = None, needed: frozenset[str] = frozenset(), **fields: Any) -> str | None:
    candidate = Candidate(slot=SLOT, provider="p", factory="m:f", **fields)
    registry = Registry().with_source("code", [candidate])
    (placing,) = resolve(registry, policy or Policy(host=HOST), SLOT, capabilities=needed).placings
    return placing.reason if placing.verdict == "rejected" else None


@pytest.mark.parametrize(
    "fields",
    [
        {"requires": ("redis",)},
        {"requires": ("redis>=5,<6",)},
        {"requires": ("redis[hiredis]>=5",)},
        {"requires": ("rc>=1",)},
        {"requires": ("nothing; python_version < '3'",)},
        {"requires": ("nothing; extra == 'x'",)},
        {"python_version": ">=3.11"},
        {"python_version": "==3.11.*"},
        {"os_platform": ("linux",)},
        {"os_platform": ("darwin", "linux")},
    ],
)
def test_candidate_whose_conditions_hold_is_eligible(fields: dict[str, Any]) -> None:
    assert obstacle(**fields) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"requires": ("nothing",)}, "requires nothing: not installed; try: pip install 'nothing'"),
        ({"requires": ("redis>=6",)}, "requires redis>=6: 5.0.1 is installed; try: pip install 'redis>=6'"),
        (
            {"requires": ("nothing", "redis", "redis<5")},
            "requires redis<5: 5.0.1 is installed; try: pip install 'nothing' 'redis' 'redis<5'",
        ),
        ({"requires": ("odd>=1",)}, "requires odd>=1: not-a-version is installed; try: pip install 'odd>=1'"),
        ({"requires": ("re dis>=",)}, "requirement 're dis>=' is not PEP 508; try: pip install 're dis>='"),
        ({"requires": ("x; color == 'red'",)}, "is not PEP 508"),
        ({"python_version": ">=3.12"}, "needs Python >=3.12, this is 3.11.7"),
        ({"python_version": "3.12"}, "python_version '3.12' is not a PEP 440 specifier"),
        ({"os_platform": ("darwin", "windows")}, "needs platform darwin or windows, this is linux"),
        ({"python_version": ">=4", "metadata": {"hint": "upgrade"}}, "needs Python >=4, this is 3.11.7; try: upgrade"),
        ({"requires": ("nothing",), "metadata": {"hint": "apt install it"}}, "not installed; try: apt install it"),
        ({"requires": ("nothing",), "metadata": {"hint": 42}}, "try: pip install 'nothing'"),
    ],
)
def test_candidate_whose_conditions_do_not_hold_is_rejected_with_the_reason(
    fields: dict[str, Any], reason: str
) -> None:
    assert reason in (obstacle(**fields) or "eligible")


def test_candidate_without_a_needed_capability_is_rejected() -> None:
    assert obstacle(needed=frozenset({"ttl", "locks"}), capabilities=frozenset({"ttl"})) == "lacks capability locks"


def test_capabilities_that_the_policy_demands_count() -> None:
    policy = Policy(capabilities={SLOT: frozenset({"ttl"})})
    assert obstacle(policy=policy) == "lacks capability ttl"


def test_barred_candidate_is_rejected_with_the_reason_of_the_bar() -> None:
    assert obstacle(policy=Policy(barred={(SLOT, "p"): Bar("sick since noon")})) == "sick since noon"


def test_bar_on_the_only_candidate_decides_the_kind_of_failure() -> None:
    registry = Registry().with_source("code", [Candidate(slot=SLOT, provider="p", factory="m:f")])
    policy = Policy(barred={(SLOT, "p"): Bar("sick", "unhealthy")})
    assert resolve(registry, policy, SLOT).failure == "unhealthy"


def test_bar_on_one_provider_leaves_the_others() -> None:
    offered = [Candidate(slot=SLOT, provider=name, factory="m:f") for name in ("p", "q")]
    policy = Policy(barred={(SLOT, "p"): Bar("sick")})
    assert resolve(Registry().with_source("code", offered), policy, SLOT).require().provider == "q"


# ONEIRIC_STACK_ORDER


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("", {}),
        (" , ,", {}),
        ("myapp:20,oneiric:10,default:0", {"myapp": 20, "oneiric": 10, "default": 0}),
        (" a : 1 , b:-2 ", {"a": 1, "b": -2}),
        ("a:007", {"a": 7}),
        ("a:999999999", {"a": 999_999_999}),
    ],
)
def test_stack_order_is_read(text: str, levels: dict[str, int]) -> None:
    assert dict(StackOrder.parse(text).levels) == levels


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("a:x", "'a:x'"),
        ("a:", "'a:'"),
        (":1", "':1'"),
        ("a", "'a'"),
        (":", "':'"),
        ("a:1:2", "'a:1:2'"),
        ("a:1.5", "'a:1.5'"),
        ("a:--1", "'a:--1'"),
        ("a:+1", "'a:+1'"),
        ("a:1_000", "'a:1_000'"),
        ("a:٣", "'a:٣'"),
        ("a:²", "'a:²'"),
        ("A:1", "'A:1'"),
        ("a b:1", "'a b:1'"),
        ("a:1000000000", "'a:1000000000'"),
        ("a:" + "9" * 5000, "9999"),
        ("a:1,a:2", "'a' is named twice"),
        ("a:1,a:1", "'a' is named twice"),
        ("a:1;b:2", "'a:1;b:2'"),
    ],
)
def test_malformed_stack_order_is_refused_by_its_token(text: str, token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StackOrder.parse(text)
    assert token in str(caught.value)


def test_every_malformed_token_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        StackOrder.parse("a:x,b:1,c:")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("order", "stack", "own", "level"),
    [
        ("", "app", None, 0),
        ("", "app", 5, 5),
        ("app:7", "app", 5, 7),
        ("app:7", "lib", 5, 5),
        ("default:3", "lib", None, 3),
        ("default:3", "lib", 5, 5),
        ("default:3", "default", None, 3),
        ("default:3", "default", 5, 5),
        ("app:-1,default:3", "app", None, -1),
    ],
)
def test_level_is_the_named_one_then_its_own_then_the_default(order: str, stack: str, own: int, level: int) -> None:
    candidate = Candidate(slot=SLOT, provider="p", factory="m:f", stack=stack, stack_level=own)
    assert StackOrder.parse(order).level(candidate) == level


NUMBERS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
VERSIONS = st.builds(
    "{}{}{}".format, NUMBERS, st.sampled_from(["", "a1", "rc2", ".post1", ".dev3"]), st.sampled_from(["", "+cu118"])
)
BOUNDS = st.builds("{}{}{}".format, st.sampled_from([">=", "==", "<"]), st.sampled_from(["", " "]), NUMBERS)


@given(
    version=VERSIONS,
    bounds=st.sampled_from([1, 1, 2]).flatmap(lambda many: st.lists(BOUNDS, min_size=many, max_size=many)),
)
def test_requirement_is_met_when_packaging_says_so(version: str, bounds: list[str]) -> None:
    wanted = ",".join(bounds)
    policy = Policy(host=Host("3.11.7", "linux", {"redis": version}.get))
    met = obstacle(policy=policy, requires=(f"redis{wanted}",)) is None
    assert met == SpecifierSet(wanted).contains(version, prereleases=True)
