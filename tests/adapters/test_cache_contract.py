"""The built-in caches."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.adapters.memory import MemoryCache
from oneiric.adapters.redis import RedisCache
from tests.adapters.contract import CacheContract, Clock, World
from tests.adapters.redis_server import RedisServer, free_port, redis_server


class TestMemory(CacheContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls) -> World:
        clock = Clock()

        @asynccontextmanager
        async def opened() -> AsyncIterator[MemoryCache]:
            yield MemoryCache(clock=clock)

        return World(opened, clock.advance)


class TestRedis(CacheContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, redis_shared: RedisServer) -> World:
        """A cache with an odd prefix of its own; time passes by bringing every deadline on the server nearer."""
        client = redis_shared.client()
        prefixes = (f"[test] {number}*?:" for number in itertools.count())

        @asynccontextmanager
        async def opened() -> AsyncIterator[RedisCache]:
            cache = RedisCache(redis_shared.url, prefix=next(prefixes))
            try:
                yield cache
            finally:
                await cache.aclose()

        async def advance(_cache: RedisCache, seconds: float) -> None:
            for key in client.scan_iter():
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, left - round(seconds * 1000))

        return World(opened, advance)


# What is particular to memory


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from("gsd"), st.integers(0, 9)), max_size=60),
)
def test_memory_keeps_at_most_its_bound_and_what_was_used_last(limit: int, steps: list[tuple[str, int]]) -> None:
    async def compare() -> None:
        cache, used = MemoryCache(limit), list[int]()  # least recently used first
        for step, number in steps:
            known = number in used
            if step == "g":
                assert await cache.get(str(number)) == (str(number) if known else None)
            elif step == "s":
                await cache.set(str(number), str(number))
            else:
                await cache.delete(str(number))
            used = [other for other in used if other != number]
            if step == "s" or (step == "g" and known):
                used = [*used, number][-limit:]
            assert len(cache) == len(used) <= limit
        assert [n for n in range(10) if await cache.get(str(n))] == sorted(used)

    anyio.run(compare)


@pytest.mark.anyio
async def test_memory_drops_an_expired_entry_when_asked_for_it() -> None:
    clock = Clock()
    cache = MemoryCache(default_ttl=5, clock=clock)
    await cache.set("by default", "x")
    await cache.set("longer", "x", 50)
    await clock.advance(cache, 6)
    assert await cache.get("by default") is None
    assert await cache.get("longer") == "x"
    assert len(cache) == 1


@pytest.mark.parametrize("settings", [{"max_entries": 0}, {"default_ttl": 0}, {"default_ttl": -1}])
def test_memory_refuses_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|more than 0"):
        MemoryCache(**settings)


# What is particular to Redis


@pytest.mark.anyio
async def test_redis_clear_leaves_other_prefixes_alone(redis_shared: RedisServer) -> None:
    ours, theirs = RedisCache(redis_shared.url, prefix="ours*"), RedisCache(redis_shared.url, prefix="ours-not:")
    await theirs.set("key", "kept")
    await ours.set("key", "gone")
    await ours.clear()
    assert await ours.get("key") is None
    assert await theirs.get("key") == "kept"
    await ours.aclose()
    await theirs.aclose()


@pytest.mark.anyio
async def test_redis_without_a_server_is_unhealthy_at_once_and_says_where() -> None:
    port = free_port()
    cache = RedisCache(f"redis://:hunter2@127.0.0.1:{port}/0")
    with anyio.fail_after(1), pytest.raises(ConnectionError, match=str(port)) as caught:
        await cache.health()
    assert "hunter2" not in repr(caught.value)
    await cache.aclose()


@pytest.mark.anyio
async def test_redis_that_does_not_answer_is_a_timeout() -> None:
    with redis_server() as server:
        cache = RedisCache(server.url, timeout=0.1)
        await cache.set("key", "value")
        server.process.send_signal(signal.SIGSTOP)
        with anyio.fail_after(1), pytest.raises(TimeoutError, match=r"redis: no answer within 0\.1 s"):
            await cache.get("key")
        server.process.send_signal(signal.SIGCONT)
        assert await cache.get("key") == "value"
        await cache.aclose()


@pytest.mark.anyio
async def test_redis_connects_anew_after_the_server_restarted() -> None:
    with redis_server() as server:
        cache = RedisCache(server.url)
        assert await cache.health()
    with redis_server(port=server.port):
        assert await cache.health()
        assert await cache.get("key") is None
    with pytest.raises(ConnectionError):
        await cache.get("key")
    await cache.aclose()


@pytest.mark.anyio
async def test_redis_password_opens_and_never_shows() -> None:
    with redis_server(password="hunter2") as server:
        good, bad = RedisCache(server.url, password="hunter2"), RedisCache(server.url, password="hunter3")
        assert await good.health()
        with pytest.raises(ConnectionError, match="invalid username-password") as caught:
            await bad.health()
        assert "hunter" not in repr(caught.value)
        await good.aclose()
        await bad.aclose()


@pytest.mark.parametrize("url", ["http://:hunter2@h/0", "redis://:hun/ter2@h:x/0", "redis://:hunter2@h:port/0", ""])
def test_redis_refuses_a_bad_url_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="url is not one of redis://") as caught:
        RedisCache(url)
    assert "hun" not in repr(caught.value)
    assert caught.value.__suppress_context__
