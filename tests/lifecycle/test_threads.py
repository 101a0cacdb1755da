"""Synchronous foreign code runs in threads, here on asyncio and real time, with bounds a test can wait for."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import msgspec
import pytest

from oneiric import Runtime, SwapFailedError
from oneiric.errors import ActivationError
from oneiric.lifecycle import factory
from oneiric.lifecycle.foreign import ForeignCalls, ForeignExit
from oneiric.testing import PART, Events, Workshop

pytestmark = pytest.mark.anyio
SHORT = 0.05
ENOUGH = 10.0  # for what has to happen soon; reaching it is a failure


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def calls() -> ForeignCalls:
    return ForeignCalls()


class Blocking:
    """A part in the old style: every method is synchronous and says in which thread it ran."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.closed = threading.Event()
        self.answer: Any = True

    def health(self) -> Any:
        self.threads.append(threading.current_thread().name)
        return self.answer

    def close(self) -> None:
        self.threads.append(threading.current_thread().name)
        assert not self.closed.is_set()
        self.closed.set()


async def until_closed(part: Blocking) -> None:
    with anyio.fail_after(ENOUGH):
        assert await anyio.to_thread.run_sync(part.closed.wait, ENOUGH)


def offer(workshop: Workshop, build: Any) -> Any:
    return msgspec.structs.replace(workshop.candidate("blocking"), factory=build)


async def test_synchronous_parts_are_built_probed_and_closed_outside_the_loop(opened: Any, workshop: Workshop) -> None:
    part = Blocking()

    def build() -> Blocking:
        part.threads.append(threading.current_thread().name)
        return part

    async with opened(offer(workshop, build)) as runtime:
        await runtime.swap(PART)
    assert part.threads == ["oneiric-foreign"] * 3


async def test_blocking_factory_is_given_up_at_its_timeout(opened: Any, workshop: Workshop) -> None:
    release = threading.Event()
    async with opened(offer(workshop, lambda: release.wait(ENOUGH)), activation_timeout=SHORT) as runtime:
        with pytest.raises(SwapFailedError) as caught:
            await runtime.swap(PART)
        release.set()
    assert caught.value.reason == "timeout"


async def test_blocking_factory_does_not_stop_the_loop(opened: Any, workshop: Workshop) -> None:
    release = threading.Event()
    blocking = offer(workshop, lambda: release.wait(ENOUGH) and Blocking())
    async with opened(blocking) as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.swap, PART)
        await anyio.sleep(SHORT)  # returns only if the loop turns
        release.set()


async def test_instance_that_arrives_after_the_timeout_is_closed(opened: Any, workshop: Workshop) -> None:
    release, part = threading.Event(), Blocking()
    async with opened(offer(workshop, lambda: release.wait(ENOUGH) and part), activation_timeout=SHORT) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
        release.set()
        await until_closed(part)


async def test_instance_that_arrives_while_the_runtime_closes_is_closed(opened: Any, workshop: Workshop) -> None:
    release, part = threading.Event(), Blocking()
    async with opened(offer(workshop, lambda: release.wait(ENOUGH) and part), activation_timeout=SHORT) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
        threading.Timer(SHORT, release.set).start()
    assert (part.closed.is_set(), runtime.unclosed) == (True, 0)


async def test_call_that_never_ends_is_counted_when_the_runtime_closes(opened: Any, workshop: Workshop) -> None:
    release = threading.Event()
    bounds = {"activation_timeout": SHORT, "drain_timeout": SHORT, "cleanup_timeout": SHORT}
    async with opened(offer(workshop, lambda: release.wait(ENOUGH)), **bounds) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
    try:
        assert runtime.unclosed == 1
    finally:
        release.set()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), StopIteration()])
async def test_synchronous_factory_may_raise_anything(error: BaseException, opened: Any, workshop: Workshop) -> None:
    def build() -> None:
        raise error

    async with opened(offer(workshop, build)) as runtime:
        with pytest.raises(SwapFailedError) as caught:
            await runtime.swap(PART)
    assert caught.value.reason == "factory"


async def test_synchronous_unhealthy_part_is_closed(opened: Any, workshop: Workshop) -> None:
    part = Blocking()
    part.answer = False
    async with opened(offer(workshop, lambda: part)) as runtime:
        with pytest.raises(SwapFailedError):
            await runtime.swap(PART)
        assert part.closed.is_set()


async def test_factory_named_by_a_path_is_imported(opened: Any, workshop: Workshop) -> None:
    async with opened(offer(workshop, "collections:OrderedDict")) as runtime, runtime.use(PART) as part:
        assert type(part).__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("oneiric.nowhere:Thing", "ImportError(ModuleNotFoundError): No module named 'oneiric.nowhere'"),
        ("collections:Nothing", "ImportError: module 'collections' has no 'Nothing'"),
        ("string:digits", "TypeError: string:digits is of type str, not something to call"),
    ],
)
async def test_factory_path_that_leads_nowhere_is_explained(
    path: str, says: str, opened: Any, workshop: Workshop
) -> None:
    async with opened(offer(workshop, path)) as runtime:
        with pytest.raises(SwapFailedError) as caught:
            await runtime.swap(PART)
    assert says in str(caught.value)


async def test_factory_runs_with_the_context_of_who_asked(calls: ForeignCalls) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    assert await calls.call(variable.get, timeout=ENOUGH) == "here"


async def test_plain_function_that_returns_a_coroutine_is_awaited(calls: ForeignCalls) -> None:
    async def answer() -> int:
        return 42

    assert await calls.call(lambda: answer(), timeout=ENOUGH) == 42


async def test_object_with_an_async_call_is_awaited(calls: ForeignCalls) -> None:
    class Factory:
        async def __call__(self) -> int:
            return 42

    assert await calls.call(Factory(), timeout=ENOUGH) == 42


async def test_foreign_cancellation_does_not_cancel_who_called(calls: ForeignCalls) -> None:
    import asyncio

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ForeignExit):
        await calls.call(cancelled, timeout=ENOUGH)


# Arguments


def no_arguments() -> None: ...
def url(url: str, *, timeout: float = 1.0) -> None: ...
def everything(**settings: Any) -> None: ...
def positional(url: str, /) -> None: ...
def with_runtime(runtime: Any, size: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("function", "settings", "given"),
    [
        (no_arguments, {}, {}),
        (url, {"url": "x"}, {"url": "x"}),
        (everything, {"a": 1}, {"a": 1}),
        (with_runtime, {"size": 2}, {"runtime": "R", "size": 2}),
        (dict, {"a": 1}, {"a": 1}),
    ],
)
def test_factory_is_given_its_settings_and_what_it_takes_of_the_offers(
    function: Any, settings: dict[str, Any], given: dict[str, Any]
) -> None:
    assert factory.arguments_for(function, settings, {"runtime": "R"}) == given


@pytest.mark.parametrize(
    ("function", "settings", "says"),
    [
        (url, {}, "'url' is needed and not set"),
        (url, {"ulr": "x"}, "'ulr' is not a setting of the factory (did you mean 'url'?); 'url' is needed and not set"),
        (url, {"url": "x", "z": 1}, "'z' is not a setting of the factory (accepted: url, timeout)"),
        (no_arguments, {"z": 1}, "'z' is not a setting of the factory (accepted: none)"),
        (positional, {}, "'url' is needed and not set"),
    ],
)
def test_settings_that_do_not_fit_are_all_named(function: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError) as caught:
        factory.arguments_for(function, settings, {})
    assert str(caught.value) == says


async def test_settings_that_do_not_fit_never_reach_the_factory(calls: ForeignCalls, workshop: Workshop) -> None:
    reached = []

    async def late(value: Any) -> None:
        reached.append(value)

    candidate = offer(workshop, lambda url: reached.append(url))
    with pytest.raises(ActivationError, match="did you mean 'url'"):
        await factory.build(candidate, {"urll": 1}, offers={}, calls=calls, timeout=ENOUGH, late=late)
    assert not reached


async def test_cancelled_program_closes_everything_also_on_asyncio(workshop: Workshop, events: Events) -> None:
    from oneiric.testing import bare_settings

    with anyio.fail_after(ENOUGH), anyio.CancelScope() as program:
        async with Runtime.open(bare_settings(), sink=events, environ={}) as runtime:
            runtime.register(workshop.candidate("a", cleanup=lambda: anyio.sleep(SHORT)), workshop.candidate("b"))
            await runtime.swap(PART, provider="a")
            program.deadline = anyio.current_time() + SHORT / 2
            await runtime.swap(PART, provider="b")
    workshop.require_closed_once()
