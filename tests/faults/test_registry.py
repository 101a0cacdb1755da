"""The registry and what explains it, under thousands of publications, threads and hostile authors."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric import Candidate, Slot
from oneiric.core.registry import Registry
from oneiric.core.resolution import Host, Policy, resolve
from oneiric.errors import ConfigError

CACHE: Slot[Any] = Slot("adapter", "cache")
QUEUE: Slot[Any] = Slot("adapter", "queue")


def publication(number: int) -> list[Candidate[Any]]:
    """What a source publishes the *number*-th time: both slots filled by the same version."""
    return [
        Candidate(slot=slot, provider="redis", factory="m:f", version=str(number), metadata={"note": f"no. {number}"})
        for slot in (CACHE, QUEUE)
    ]


def test_ten_thousand_publications_of_one_source_leave_memory_flat() -> None:
    registry = Registry().with_source("manifest", publication(0))
    tracemalloc.start()
    try:
        growth = 0
        for number in range(10_000):
            registry = registry.with_source("manifest", publication(number))
            if number == 100:
                gc.collect()
                growth = -tracemalloc.get_traced_memory()[0]
        gc.collect()
        growth += tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert growth < 1 << 20, "a kept publication takes more than a kilobyte, ten thousand of them ten times as much"
    assert [c.version for slot in registry.slots() for c in registry.candidates(slot)] == ["9999", "9999"]


def test_threads_that_resolve_during_publications_see_one_publication_whole() -> None:
    current = Registry().with_source("manifest", publication(0))
    seen: list[set[str]] = [set(), set(), set()]
    done = threading.Event()

    def read(versions_seen: set[str]) -> int:
        mixed = 0
        while not done.is_set():
            registry = current
            versions = [resolve(registry, Policy(), slot).require().version for slot in (CACHE, QUEUE)]
            mixed += versions[0] != versions[1]
            versions_seen.update(versions)
        return mixed

    deadline = time.monotonic() + 60
    with ThreadPoolExecutor(3) as at_once:
        readers = [at_once.submit(read, versions_seen) for versions_seen in seen]
        for number in count(1):
            current = current.with_source("manifest", publication(number))
            if min(map(len, seen)) > 20 or time.monotonic() > deadline:
                break
        done.set()
    assert [reader.result() for reader in readers] == [0, 0, 0]
    assert min(map(len, seen)) > 20, "too little was read while it was published"


def test_publication_with_one_bad_candidate_leaves_what_was_there() -> None:
    registry = Registry().with_source("manifest", publication(1))
    with pytest.raises(ConfigError):
        registry.with_source("manifest", [*publication(2), publication(3)[0]])
    assert resolve(registry, Policy(), CACHE).require().version == "1"


texts = st.text(st.characters(), max_size=300) | st.sampled_from(
    ["\x1b[2J", "adapter/cache: fine\n" * 20, "x" * 100_000, "\udcff", "\u202e", "%s{0}"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(
    metadata=st.dictionaries(texts, anything, max_size=4) | texts.map(lambda text: {"hint": text}),
    python_version=texts,
    requires=st.lists(texts, max_size=3).map(tuple),
    os_platform=st.lists(texts, max_size=3).map(tuple),
)
def test_explanation_of_a_hostile_candidate_is_short_and_one_line_each(
    metadata: dict[str, Any], python_version: str, requires: tuple[str, ...], os_platform: tuple[str, ...]
) -> None:
    hostile: Candidate[Any] = Candidate(
        slot=CACHE,
        provider="evil",
        factory="m:f",
        metadata=metadata,
        python_version=python_version,
        requires=requires,
        os_platform=os_platform,
    )
    registry = Registry().with_source("manifest", [hostile, *publication(1)])
    policy = Policy(host=Host("3.12.0", "linux", lambda _name: None))
    text = str(resolve(registry, policy, CACHE))
    assert len(text.splitlines()) == 3
    assert len(text) < 2_000
