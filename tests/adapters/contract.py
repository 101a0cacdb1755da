"""What every implementation of KeyValue and of Cache has to do, whoever wrote it.

A test class inherits a contract and says in its fixture ``world`` how to open an empty store and how to let time pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneiric.adapters.protocols import Cache, KeyValue


@dataclass(frozen=True)
class World:
    """Opens an empty store, and lets time pass for it: a clock that the test moves, never a sleep."""

    open: Callable[[], AbstractAsyncContextManager[Any]]
    advance: Callable[[Any, float], Awaitable[None]]


KEYS = st.sampled_from(["a", "b", "é", "with space", "*", "a*"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
KV_STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, TEXTS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("delete"), KEYS),
)
CACHE_STEPS = st.one_of(
    KV_STEPS,
    st.tuples(st.just("set"), KEYS, TEXTS, st.integers(1, 100)),
    st.tuples(st.just("advance"), st.integers(1, 60)),
    st.tuples(st.just("clear")),
)
# One property runs in the classes of several implementations, each with a world that its examples share.
shared = settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow])


class Model:
    """What a store should answer: a dict, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.kept: dict[str, tuple[str, float]] = {}

    def get(self, key: str) -> str | None:
        value, deadline = self.kept.get(key, (None, 0.0))
        return value if deadline > self.now else None

    def set(self, key: str, value: str, ttl: float = float("inf")) -> None:
        self.kept[key] = value, self.now + ttl

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def clear(self) -> None:
        self.kept.clear()


async def agree(world: World, steps: list[tuple[Any, ...]]) -> None:
    """Take *steps* with an empty store and with the model, and compare every answer."""
    model = Model()
    async with world.open() as store:
        for name, *arguments in steps:
            if name == "advance":
                model.now += arguments[0]
                await world.advance(store, arguments[0])
            else:
                expected = getattr(model, name)(*arguments)
                assert await getattr(store, name)(*arguments) == expected, (name, arguments)
        for key in model.kept:
            assert await store.get(key) == model.get(key)


class KeyValueContract:
    """What holds for every KeyValue."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="class")
    @classmethod
    def world(cls) -> World:
        raise NotImplementedError

    async def test_unknown_key_gives_none(self, world: World) -> None:
        async with world.open() as store:
            assert await store.get("nobody") is None

    async def test_set_replaces_what_was_there(self, world: World) -> None:
        async with world.open() as store:
            await store.set("colour", "blue")
            await store.set("colour", "green")
            assert await store.get("colour") == "green"

    async def test_empty_value_is_not_an_absent_one(self, world: World) -> None:
        async with world.open() as store:
            await store.set("empty", "")
            assert await store.get("empty") == ""

    async def test_delete_forgets_and_does_not_mind_an_unknown_key(self, world: World) -> None:
        async with world.open() as store:
            await store.set("colour", "blue")
            await store.delete("colour")
            await store.delete("colour")
            assert await store.get("colour") is None

    async def test_large_values_and_any_text_come_back_as_they_were(self, world: World) -> None:
        value = "\x00 ' \" \n \u2028 \U0001f98a" * 50_000
        async with world.open() as store:
            await store.set("key \x00 '%_*", value)
            assert await store.get("key \x00 '%_*") == value

    async def test_a_hundred_callers_at_once_lose_nothing(self, world: World) -> None:
        async def work(store: KeyValue, number: int) -> None:
            await store.set(f"key {number}", str(number))
            assert await store.get(f"key {number}") == str(number)

        async with world.open() as store:
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(work, store, number)
            assert [await store.get(f"key {n}") for n in range(100)] == [str(n) for n in range(100)]

    async def test_is_healthy_while_open_and_may_be_closed_twice(self, world: World) -> None:
        async with world.open() as store:
            health = getattr(store, "health", None)
            assert health is None or await health() is True
            await store.aclose()
            await store.aclose()

    async def test_names_its_provider(self, world: World) -> None:
        async with world.open() as store:
            assert isinstance(store.provider, str)

    @given(steps=st.lists(KV_STEPS, max_size=30))
    @shared
    def test_behaves_like_a_dict(self, world: World, steps: list[tuple[Any, ...]]) -> None:
        anyio.run(agree, world, steps)


class CacheContract(KeyValueContract):
    """What holds for every Cache besides."""

    async def test_entry_lives_until_its_ttl_has_passed(self, world: World) -> None:
        async with world.open() as cache:
            await cache.set("offer", "half price", 10)
            await world.advance(cache, 9)
            assert await cache.get("offer") == "half price"
            await world.advance(cache, 2)
            assert await cache.get("offer") is None

    async def test_entry_without_a_ttl_stays(self, world: World) -> None:
        async with world.open() as cache:
            await cache.set("name", "shop")
            await world.advance(cache, 1_000_000)
            assert await cache.get("name") == "shop"

    async def test_setting_again_without_a_ttl_takes_it_away(self, world: World) -> None:
        async with world.open() as cache:
            await cache.set("offer", "half price", 10)
            await cache.set("offer", "full price")
            await world.advance(cache, 11)
            assert await cache.get("offer") == "full price"

    @pytest.mark.parametrize("ttl", [0, -1, float("nan")])
    async def test_ttl_must_be_more_than_zero(self, world: World, ttl: float) -> None:
        async with world.open() as cache:
            await cache.set("kept", "yes")
            with pytest.raises(ValueError, match="more than 0 seconds"):
                await cache.set("kept", "no", ttl)
            assert await cache.get("kept") == "yes"

    async def test_clear_forgets_everything(self, world: World) -> None:
        async with world.open() as cache:
            for number in range(1_200):
                await cache.set(f"key {number}", "x")
            await cache.clear()
            assert [n for n in range(1_200) if await cache.get(f"key {n}") is not None] == []

    async def test_satisfies_the_protocol(self, world: World) -> None:
        async with world.open() as store:
            cache: Cache = store
            await cache.set("typed", "yes", ttl=1)
            assert await cache.get("typed") == "yes"

    @given(steps=st.lists(CACHE_STEPS, max_size=30))
    @shared
    def test_behaves_like_a_dict_that_forgets(self, world: World, steps: list[tuple[Any, ...]]) -> None:
        anyio.run(agree, world, steps)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, _store: object, seconds: float) -> None:
        self.now += seconds
