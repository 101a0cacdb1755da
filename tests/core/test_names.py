"""Slots, candidates, and what they may be called."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any, Protocol

import pytest

from oneiric import Candidate, Slot
from oneiric.core.candidate import is_factory_path, is_name
from oneiric.core.domain import DOMAINS
from oneiric.errors import ConfigError, UsageError

SLOT: Slot[Any] = Slot("adapter", "cache")


class Cache(Protocol):
    """What fills the slot."""


CACHE = Slot[Cache]("adapter", "cache")

BAD_NAMES = [
    "", " ", "a b", "Cache", "cafÉ", "é", "-a", ".a", "_a", "a..b", "a/b", "a:b", "a\n", "\na", "a\x00", "a" * 129, "٣",
]  # fmt: skip


@pytest.mark.parametrize("name", ["a", "0", "a-b_c.d", "a" * 128, "9lives"])
def test_name_is_accepted(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_name_is_refused(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("path", ["m:f", "shop.cache:Redis", "a_b.C:D.e", "_x:_y"])
def test_factory_path_is_accepted(path: str) -> None:
    assert is_factory_path(path)


@pytest.mark.parametrize(
    "path",
    ["", "m", "m:", ":f", "m:f\n", "m:f:g", "m..n:f", "m:f..g", ".m:f", "m f:g", "../m:f", "m:f()", "é:f", "1m:f"],
)
def test_factory_path_is_refused(path: str) -> None:
    assert not is_factory_path(path)


@pytest.mark.parametrize("key", BAD_NAMES)
def test_slot_refuses_what_is_not_a_key(key: str) -> None:
    with pytest.raises(UsageError, match="cannot be a key"):
        Slot("adapter", key)


@pytest.mark.parametrize("domain", ["", "adapters", "Adapter", "adapter\n", "kitchen"])
def test_slot_refuses_what_is_not_a_domain_and_says_which_there_are(domain: str) -> None:
    with pytest.raises(UsageError) as caught:
        Slot(domain, "cache")
    assert caught.value.hint == "use one of: adapter, service, task, event, workflow, action"


def test_slot_is_equal_to_and_hashes_like_its_tuple() -> None:
    assert (SLOT, hash(SLOT)) == (("adapter", "cache"), hash(("adapter", "cache")))


def test_slots_of_different_types_are_the_same_slot() -> None:
    assert CACHE == SLOT


def test_slots_sort_by_domain_and_key() -> None:
    assert sorted([Slot("task", "a"), Slot("adapter", "b"), Slot("adapter", "a")]) == [
        ("adapter", "a"),
        ("adapter", "b"),
        ("task", "a"),
    ]


def test_slot_is_printed_with_a_slash() -> None:
    assert (str(SLOT), repr(SLOT)) == ("adapter/cache", "Slot('adapter', 'cache')")


def test_slot_knows_its_protocol() -> None:
    assert (CACHE.protocol, SLOT.protocol) == (Cache, None)


def test_slot_typed_with_any_has_no_protocol() -> None:
    assert Slot[Any]("adapter", "cache").protocol is None


@pytest.mark.parametrize("twin", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])
def test_slot_keeps_its_protocol_when_copied(twin: Any) -> None:
    again = twin(CACHE)
    assert (type(again), again, again.protocol) == (Slot, CACHE, Cache)


def test_domains_are_six_and_each_has_a_group_and_a_file() -> None:
    assert [(d.group, d.settings_file) for d in DOMAINS.values()] == [
        (f"oneiric.{plural}", f"{plural}.yml")
        for plural in ("adapters", "services", "tasks", "events", "workflows", "actions")
    ]


# Candidates


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        *(({"provider": name}, f"provider {name!r} is not a name") for name in BAD_NAMES),
        ({"factory": "nowhere"}, "factory 'nowhere' is neither callable nor a path"),
        ({"factory": 42}, "factory 42 is neither callable nor a path"),
        ({"factory": "m:f\n"}, "is neither callable nor a path"),
        ({"version": "latest"}, "version 'latest' is not PEP 440"),
        ({"version": ""}, "version '' is not PEP 440"),
        ({"slot": ("adapter", "cache")}, "is not a Slot"),
    ],
)
def test_candidate_with_a_malformed_field_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Candidate(**{"slot": SLOT, "provider": "p", "factory": "m:f", **fields})
    assert says in str(caught.value)


def test_every_malformed_field_of_a_candidate_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Candidate(slot=SLOT, provider="P", factory="nowhere", version="latest")
    assert len(caught.value.problems) == 3


def test_candidate_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Candidate(slot=SLOT, provider="p", factory="m:f").priority = 1  # type: ignore[misc]


@pytest.mark.parametrize(("factory", "path"), [("m:f", "m:f"), (Cache, f"{__name__}:Cache"), (len, "builtins:len")])
def test_candidate_says_where_its_factory_is(factory: Any, path: str) -> None:
    assert Candidate(slot=SLOT, provider="p", factory=factory).factory_path == path


def test_candidates_that_refer_to_their_owner_are_collected() -> None:
    candidate: Candidate[Any] = Candidate(slot=SLOT, provider="p", factory=lambda: None)
    assert gc.is_tracked(candidate)
