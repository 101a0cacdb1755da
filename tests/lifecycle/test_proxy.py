"""A proxy has the signatures of its protocol, and takes a lease for every call."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio
import pytest

from oneiric import Candidate, Runtime, Slot
from oneiric.errors import UsageError

pytestmark = pytest.mark.anyio


class Shop(Protocol):
    """What a proxy is made for."""

    async def plain(self, a: int, b: int = 2) -> Any: ...
    async def keywords(self, a: int, *, b: int, c: int = 3) -> Any: ...
    async def anything(self, *args: int, **kwargs: int) -> Any: ...
    async def everything(self, a: int, /, b: int = 2, *args: int, c: int, d: int = 4, **kwargs: int) -> Any: ...
    async def named_alike(self, key: str, /, **fields: Any) -> Any: ...
    async def collide(self, live: str, held: str, item: str) -> Any: ...
    async def live(self) -> Any: ...
    async def slow(self) -> Any: ...
    async def broken(self) -> Any: ...

    async def count(self, live: int, *, step: int = 1) -> AsyncIterator[int]:
        """Count."""
        yield 0


class Counter:
    """Fills the slot; says what it was called with."""

    def __init__(self, name: str = "one") -> None:
        self.name = name
        self.closed = False
        self.ended_open: list[bool] = []

    async def plain(self, a: int, b: int = -1) -> Any:
        return a, b

    async def keywords(self, a: int, *, b: int, c: int = -1) -> Any:
        return a, b, c

    async def anything(self, *args: int, **kwargs: int) -> Any:
        return args, kwargs

    async def everything(self, a: int, /, b: int = -1, *args: int, c: int, d: int = -1, **kwargs: int) -> Any:
        return a, b, args, c, d, kwargs

    async def named_alike(self, key: str, /, **fields: Any) -> Any:
        return key, fields

    async def collide(self, live: str, held: str, item: str) -> Any:
        return live, held, item

    async def live(self) -> Any:
        return self.name

    async def slow(self) -> Any:
        await anyio.sleep(5)
        return self.name, self.closed

    async def broken(self) -> Any:
        raise ZeroDivisionError

    async def count(self, live: int, *, step: int = 1) -> AsyncIterator[int]:
        try:
            for number in range(0, live, step):
                yield number
        finally:
            self.ended_open.append(not self.closed)

    async def aclose(self) -> None:
        self.closed = True


SHOP: Slot[Shop] = Slot[Shop]("service", "shop")


async def one() -> Counter:
    return Counter("one")


async def two() -> Counter:
    return Counter("two")


ONE = Candidate(slot=SHOP, provider="one", factory=one, priority=1)
TWO = Candidate(slot=SHOP, provider="two", factory=two)


def leases(runtime: Runtime) -> int:
    return runtime.snapshot().record(SHOP).leases


CALLS = {
    "positional": (lambda shop: shop.plain(1, 5), (1, 5)),
    "by name": (lambda shop: shop.plain(b=5, a=1), (1, 5)),
    "the protocol's default": (lambda shop: shop.plain(1), (1, 2)),
    "keyword only": (lambda shop: shop.keywords(1, b=2), (1, 2, 3)),
    "keyword only given": (lambda shop: shop.keywords(1, c=5, b=2), (1, 2, 5)),
    "star": (lambda shop: shop.anything(1, 2, x=3), ((1, 2), {"x": 3})),
    "star empty": (lambda shop: shop.anything(), ((), {})),
    "all kinds": (lambda shop: shop.everything(1, 2, 3, 4, c=5, x=6), (1, 2, (3, 4), 5, 4, {"x": 6})),
    "all kinds, few": (lambda shop: shop.everything(1, c=5), (1, 2, (), 5, 4, {})),
    "positional only beside its namesake": (lambda shop: shop.named_alike("k", key="v"), ("k", {"key": "v"})),
    "names the proxy uses itself": (lambda shop: shop.collide("a", held="b", item="c"), ("a", "b", "c")),
    "a method named as the proxy's own": (lambda shop: shop.live(), "one"),
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS)
async def test_proxy_passes_arguments_on(call: Any, expected: Any, opened: Any) -> None:
    async with opened(ONE) as runtime:
        assert await call(runtime.proxy(SHOP)) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda shop: shop.plain(),
        lambda shop: shop.plain(1, 2, 3),
        lambda shop: shop.keywords(1, 2),
        lambda shop: shop.everything(a=1, c=2),
        lambda shop: shop.plain(1, z=1),
    ],
)
async def test_proxy_refuses_what_its_protocol_refuses(call: Any, opened: Any) -> None:
    async with opened(ONE) as runtime:
        with pytest.raises(TypeError):
            await call(runtime.proxy(SHOP))


async def test_proxy_activates_the_slot_at_its_first_call(opened: Any) -> None:
    async with opened(ONE) as runtime:
        shop = runtime.proxy(SHOP)
        before = runtime.snapshot().record(SHOP).provider
        await shop.live()
        assert (before, runtime.snapshot().record(SHOP).provider) == ("", "one")


async def test_proxy_sees_a_swap(opened: Any) -> None:
    async with opened(ONE, TWO) as runtime:
        shop = runtime.proxy(SHOP)
        before = await shop.live()
        await runtime.swap(SHOP, provider="two")
        assert (before, await shop.live()) == ("one", "two")


async def test_proxy_call_finishes_on_the_instance_it_began_on(opened: Any) -> None:
    answers = []
    async with opened(ONE, TWO) as runtime:
        shop = runtime.proxy(SHOP)

        async def call() -> None:
            answers.append(await shop.slow())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(1)
            await runtime.swap(SHOP, provider="two")
    assert answers == [("one", False)]


async def test_proxy_holds_a_lease_for_the_call_only(opened: Any) -> None:
    async with opened(ONE) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.proxy(SHOP).slow)
        await anyio.sleep(1)
        during = leases(runtime)
        await anyio.sleep(5)
        assert (during, leases(runtime)) == (1, 0)


async def test_proxy_gives_its_lease_back_when_the_call_raises(opened: Any) -> None:
    async with opened(ONE) as runtime:
        with pytest.raises(ZeroDivisionError):
            await runtime.proxy(SHOP).broken()
        assert leases(runtime) == 0


async def test_proxy_gives_its_lease_back_when_the_call_is_cancelled(opened: Any) -> None:
    async with opened(ONE) as runtime:
        await runtime.proxy(SHOP).live()
        with anyio.move_on_after(1):
            await runtime.proxy(SHOP).slow()
        assert leases(runtime) == 0


async def test_proxy_streams(opened: Any) -> None:
    async with opened(ONE) as runtime:
        assert [number async for number in runtime.proxy(SHOP).count(6, step=2)] == [0, 2, 4]


async def test_proxy_stream_holds_its_lease_until_it_is_exhausted(opened: Any) -> None:
    async with opened(ONE) as runtime:
        during = [leases(runtime) async for _ in runtime.proxy(SHOP).count(3)]
        assert (during, leases(runtime)) == ([1, 1, 1], 0)


async def test_proxy_stream_given_up_ends_the_one_behind_it_while_its_instance_is_open(opened: Any) -> None:
    async with opened(ONE, TWO) as runtime:
        shop = runtime.proxy(SHOP)
        async with runtime.use(SHOP) as counter:
            pass
        stream = shop.count(10)
        await anext(stream)  # type: ignore[call-overload]
        await stream.aclose()  # type: ignore[attr-defined]
        await runtime.swap(SHOP, provider="two")
        gc.collect()
        assert counter.ended_open == [True]


@pytest.mark.parametrize("untyped", [Slot("service", "untyped"), Slot[Any]("service", "untyped")])
async def test_proxy_of_an_untyped_slot_is_refused(untyped: Slot[Any], opened: Any) -> None:
    async with opened() as runtime:
        with pytest.raises(UsageError, match="not typed"):
            runtime.proxy(untyped)


async def test_proxy_of_a_protocol_with_synchronous_methods_is_refused(opened: Any) -> None:
    class Synchronous(Protocol):
        def get(self) -> int: ...

    async with opened() as runtime:
        with pytest.raises(UsageError, match=r"get\(\) of its protocol is not async"):
            runtime.proxy(Slot[Synchronous]("service", "sync"))


async def test_proxy_says_what_it_stands_for(opened: Any) -> None:
    async with opened() as runtime:
        assert repr(runtime.proxy(SHOP)) == "<proxy of service/shop>"


async def test_proxy_has_the_documentation_of_its_protocol(opened: Any) -> None:
    async with opened() as runtime:
        assert runtime.proxy(SHOP).count.__doc__ == "Count."


async def test_proxy_has_no_other_methods(opened: Any) -> None:
    async with opened(ONE) as runtime:
        assert not hasattr(runtime.proxy(SHOP), "aclose")
