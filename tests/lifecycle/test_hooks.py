"""Hooks: before callers move and after, on any thread; one that misbehaves makes the swap fail and nothing else."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio

from oneiric import Runtime, Slot, SwapFailedError
from oneiric.lifecycle.reports import SwapNotice
from oneiric.testing import PART, Events, Workshop, answer, drag, hang, swallow
from tests.harness.slots import running, settings_of, use_once

pytestmark = pytest.mark.anyio
IN_THREADS = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # real threads need real time
MODULE = "hooks_of_the_operator"
WHEN = ["before", "after"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


RAISED = [
    ValueError("no"),
    TimeoutError("upstream"),
    Unspeakable(),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseExceptionGroup("two", [SystemExit(1)]),
]


class Log:
    """Hooks that write down what they were told and who served at that moment."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notices: list[SwapNotice] = []
        self.runtime: Runtime | None = None

    def hook(self, name: str) -> Any:
        async def note(notice: SwapNotice) -> None:
            self.notices.append(notice)
            serving = self.runtime.snapshot().record(notice.slot).provider if self.runtime else "?"
            self.lines.append(f"{name}: {serving or 'nobody'} serves")

        return note

    def watch(self, runtime: Runtime, slot: Slot[Any] = PART) -> None:
        self.runtime = runtime
        runtime.on_swap(slot, before=self.hook("before"), after=self.hook("after"))


def raising(error: BaseException) -> Any:
    async def hook(_notice: SwapNotice) -> None:
        raise error

    return hook


def behaving(behaviour: Any) -> Any:
    async def hook(_notice: SwapNotice) -> None:
        await behaviour()

    return hook


def two(workshop: Workshop) -> list[Any]:
    return [workshop.candidate("a", priority=1), workshop.candidate("b")]


async def fail_to_swap(runtime: Runtime, provider: str | None = "b") -> SwapFailedError:
    with pytest.raises(SwapFailedError) as caught:
        await runtime.swap(PART, provider=provider)
    return caught.value


# When


async def test_before_hook_runs_while_the_old_serves_and_after_hook_when_callers_moved(
    opened: Any, workshop: Workshop
) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        log.watch(runtime)
        await runtime.swap(PART, provider="b")
    assert log.lines == ["before: a serves", "after: b serves"]


async def test_hooks_see_both_instances_open(opened: Any, workshop: Workshop) -> None:
    closed = []

    async def hook(notice: SwapNotice) -> None:
        closed.append((notice.old.closed, notice.new.closed))

    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, before=hook, after=hook)
        await runtime.swap(PART, provider="b")
    assert closed == [(0, 0), (0, 0)]


async def test_hook_does_not_run_for_an_unhealthy_instance(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop), workshop.candidate("sick", health=answer(False))) as runtime:
        await runtime.swap(PART)
        log.watch(runtime)
        await fail_to_swap(runtime, "sick")
    assert log.lines == []


async def test_hooks_run_at_a_first_activation(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        log.watch(runtime)
        await use_once(runtime, PART)
    assert log.lines == ["before: nobody serves", "after: a serves"]


async def test_hooks_run_when_precedence_changes(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        log.watch(runtime)
        runtime.register(workshop.candidate("c", priority=2))
        await runtime.reconcile()
    assert log.lines == ["before: a serves", "after: c serves"]


async def test_hooks_do_not_run_where_nothing_moves(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        log.watch(runtime)
        await runtime.swap(PART)
        await runtime.swap(PART, provider="b", dry_run=True)
    assert log.lines == []


async def test_hooks_run_in_the_order_in_which_they_were_declared(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        for name in ("first", "second"):
            runtime.on_swap(PART, before=log.hook(name))
        await runtime.swap(PART)
    assert [line.partition(":")[0] for line in log.lines] == ["first", "second"]


async def test_hook_after_one_that_raises_does_not_run(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        runtime.on_swap(PART, before=raising(ValueError("no")), after=log.hook("after"))
        runtime.on_swap(PART, before=log.hook("before"))
        await fail_to_swap(runtime, "a")
    assert log.lines == []


# What a hook is told


async def test_notice_says_who_leaves_and_who_comes(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        log.watch(runtime)
        await runtime.swap(PART, provider="b")
    old, new = workshop.built
    assert log.notices == [SwapNotice(PART, "a", "b", old, new)] * 2


async def test_notice_of_a_first_activation_names_nobody_who_leaves(opened: Any, workshop: Workshop) -> None:
    log = Log()
    async with opened(*two(workshop)) as runtime:
        log.watch(runtime)
        await runtime.swap(PART)
    assert log.notices == [SwapNotice(PART, "", "a", None, workshop.built[0])] * 2


# How


@IN_THREADS
async def test_synchronous_hook_runs_in_a_thread(anyio_backend: str, opened: Any, workshop: Workshop) -> None:
    threads = []
    async with opened(*two(workshop)) as runtime:
        runtime.on_swap(PART, before=lambda _notice: threads.append(threading.get_ident()))
        await runtime.swap(PART)
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


async def test_asynchronous_hook_runs_in_the_loop_in_a_task_of_its_own(opened: Any, workshop: Workshop) -> None:
    ran = []

    async def hook(_notice: SwapNotice) -> None:
        ran.append((threading.get_ident(), trio.lowlevel.current_task()))

    async with opened(*two(workshop)) as runtime:
        runtime.on_swap(PART, before=hook, after=hook)
        await runtime.swap(PART)
    (thread, before), (_, after) = ran
    assert thread == threading.get_ident()
    assert len({before, after, trio.lowlevel.current_task()}) == 3


@IN_THREADS
async def test_blocking_hook_is_given_up_at_its_timeout(anyio_backend: str, opened: Any, workshop: Workshop) -> None:
    release = threading.Event()
    async with opened(*two(workshop), hook_timeout=0.05) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, before=lambda _notice: release.wait(10))
        error = await fail_to_swap(runtime)
        release.set()
        assert (error.reason, runtime.snapshot().record(PART).provider) == ("hook", "a")


@IN_THREADS
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), StopIteration()])
async def test_synchronous_hook_may_raise_anything(
    anyio_backend: str, error: BaseException, opened: Any, workshop: Workshop
) -> None:
    def hook(_notice: SwapNotice) -> None:
        raise error

    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, after=hook)
        assert (await fail_to_swap(runtime)).reason == "hook"


# What misbehaves


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_hook_that_raises_leaves_the_old_instance_and_counts_a_rollback(
    error: BaseException, when: str, opened: Any, workshop: Workshop
) -> None:
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, **{when: raising(error)})
        failure = await fail_to_swap(runtime)
        record = runtime.snapshot().record(PART)
        assert (failure.reason, failure.rolled_back) == ("hook", True)
        assert (record.provider, record.outcomes, record.pin) == ("a", {"success": 1, "rollback": 1}, None)
        assert await use_once(runtime, PART) == "a"
    workshop.require_closed_once()


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("behaviour", [hang, swallow, drag])
async def test_hook_that_hangs_is_given_up_at_the_hook_timeout(
    behaviour: Any, when: str, opened: Any, workshop: Workshop
) -> None:
    async with opened(*two(workshop), hook_timeout=7.0) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, **{when: behaving(behaviour)})
        started = anyio.current_time()
        failure = await fail_to_swap(runtime)
        assert (failure.reason, anyio.current_time() - started) == ("hook", 7.0)


async def test_failure_of_a_hook_names_the_hook_and_where_to_correct_it(opened: Any, workshop: Workshop) -> None:
    async with opened(*two(workshop)) as runtime:
        runtime.on_swap(PART, before=raising(ValueError("not now")))
        failure = await fail_to_swap(runtime)
    assert "ValueError: not now (adapter/part, before_swap hook raising.<locals>.hook)" in str(failure)
    assert failure.hint.startswith("correct the hook, or take it out of slots: part:")


async def test_instance_that_a_before_hook_refused_is_closed_before_the_swap_fails(
    opened: Any, workshop: Workshop
) -> None:
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, before=raising(ValueError("no")))
        await fail_to_swap(runtime)
        assert [part.closed for part in workshop.built] == [0, 1]


async def test_instance_that_an_after_hook_refused_is_closed_when_its_last_lease_ends(
    opened: Any, workshop: Workshop
) -> None:
    closed = []

    async def hold(runtime: Runtime, *, task_status: Any) -> None:
        async with runtime.use(PART) as part:
            task_status.started()
            await anyio.sleep(10)
            closed.append(part.closed)
            await part.work()

    async with anyio.create_task_group() as callers, opened(*two(workshop)) as runtime:
        await runtime.swap(PART)

        async def hook(_notice: SwapNotice) -> None:
            await callers.start(hold, runtime)  # takes its lease on the new instance
            raise ValueError("no")

        runtime.on_swap(PART, after=hook)
        await fail_to_swap(runtime)
        assert await use_once(runtime, PART) == "a"
        await anyio.sleep(10.5)
        assert (closed, [part.closed for part in workshop.by("b")]) == ([0], [1])


async def test_first_activation_that_a_hook_refuses_is_failed_and_leaves_nothing(
    opened: Any, workshop: Workshop
) -> None:
    async with opened(*two(workshop)) as runtime:
        runtime.on_swap(PART, after=raising(ValueError("no")))
        failure = await fail_to_swap(runtime, None)
        record = runtime.snapshot().record(PART)
        await anyio.sleep(1)
        assert (failure.rolled_back, record.state, record.outcomes) == (False, "failed", {"failed": 1})
        assert not workshop.open


async def test_hook_that_failed_once_is_asked_again(opened: Any, workshop: Workshop) -> None:
    answers = [ValueError("no"), None]

    async def hook(_notice: SwapNotice) -> None:
        if error := answers.pop(0):
            raise error

    async with opened(*two(workshop)) as runtime:
        runtime.on_swap(PART, before=hook)
        await fail_to_swap(runtime, None)
        assert await use_once(runtime, PART) == "a"


async def test_hook_that_hangs_does_not_hold_up_another_slot_it_is_shared_with(opened: Any, workshop: Workshop) -> None:
    other: Slot[Any] = Slot("adapter", "other")

    async def hook(notice: SwapNotice) -> None:
        if notice.slot == PART:
            await anyio.sleep_forever()

    async with opened(*two(workshop), workshop.candidate("a", slot=other)) as runtime:
        for slot in (PART, other):
            runtime.on_swap(slot, before=hook)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_to_swap, runtime)
            await anyio.sleep(1)
            started = anyio.current_time()
            await runtime.swap(other)
            assert anyio.current_time() == started


async def test_hook_that_waits_for_a_swap_of_its_own_slot_is_given_up_and_that_swap_is_done(
    opened: Any, workshop: Workshop
) -> None:
    async with opened(*two(workshop), workshop.candidate("c")) as runtime:
        await runtime.swap(PART)
        asked = []

        async def hook(notice: SwapNotice) -> None:
            if not asked:
                asked.append(notice.provider)
                await runtime.swap(PART, provider="c")

        runtime.on_swap(PART, before=hook)
        await fail_to_swap(runtime)
        await anyio.sleep(1)
        assert runtime.snapshot().record(PART).provider == "c"


async def test_runtime_that_closes_while_a_hook_hangs_closes_both_instances_once(
    opened: Any, workshop: Workshop
) -> None:
    async with anyio.create_task_group() as tasks, opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, after=behaving(hang))
        tasks.start_soon(_swap_and_ignore, runtime)
        await anyio.sleep(1)
    workshop.require_closed_once()


async def _swap_and_ignore(runtime: Runtime) -> None:
    with pytest.raises(Exception, match="the runtime closed before the swap was done"):
        await runtime.swap(PART, provider="b")


# Named in the settings


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module of hooks that settings can name."""
    module = SimpleNamespace(told=[], number=42)
    module.note = lambda notice: module.told.append(f"{notice.previous or 'nobody'} -> {notice.provider}")
    monkeypatch.setitem(sys.modules, MODULE, module)  # type: ignore[arg-type]
    return module


@IN_THREADS
@pytest.mark.parametrize("when", WHEN)
async def test_hook_named_in_the_settings_runs(
    anyio_backend: str, when: str, operators: Any, workshop: Workshop, events: Events
) -> None:
    settings = settings_of({f"{when}_swap": f"{MODULE}:note"})
    async with running(settings, events, *two(workshop)) as runtime:
        await runtime.swap(PART)
        await runtime.swap(PART, provider="b")
    assert operators.told == ["nobody -> a", "a -> b"]


@IN_THREADS
async def test_hook_named_in_the_settings_runs_before_those_of_the_program(
    anyio_backend: str, operators: Any, workshop: Workshop, events: Events
) -> None:
    async with running(settings_of({"before_swap": f"{MODULE}:note"}), events, *two(workshop)) as runtime:
        runtime.on_swap(PART, before=lambda _notice: operators.told.append("program"))
        await runtime.swap(PART)
    assert operators.told == ["nobody -> a", "program"]


@IN_THREADS
async def test_hook_named_in_new_settings_runs_at_the_next_swap(
    anyio_backend: str, operators: Any, workshop: Workshop, events: Events
) -> None:
    async with running(settings_of(), events, *two(workshop)) as runtime:
        await runtime.swap(PART)
        await runtime.apply(settings_of({"after_swap": f"{MODULE}:note"}))
        await runtime.swap(PART, provider="b")
    assert operators.told == ["a -> b"]


@IN_THREADS
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("oneiric.nowhere:hook", "ImportError(ModuleNotFoundError): No module named 'oneiric.nowhere'"),
        (f"{MODULE}:nothing", f"ImportError: module '{MODULE}' has no 'nothing'"),
        (f"{MODULE}:number", f"TypeError: {MODULE}:number is of type int, not something to call"),
    ],
)
@pytest.mark.parametrize("when", WHEN)
async def test_hook_path_that_leads_nowhere_fails_the_swap_and_names_the_path(
    anyio_backend: str, when: str, path: str, says: str, operators: Any, workshop: Workshop, events: Events
) -> None:
    async with running(settings_of(), events, *two(workshop)) as runtime:
        await runtime.swap(PART)
        await runtime.apply(settings_of({f"{when}_swap": path}))
        failure = await fail_to_swap(runtime)
        assert f"{says} (adapter/part, {when}_swap hook {path})" in str(failure)
        assert (failure.reason, runtime.snapshot().record(PART).provider) == ("hook", "a")


# What is reported


async def test_hook_failure_is_reported_with_its_reason(opened: Any, workshop: Workshop, events: Events) -> None:
    async with opened(*two(workshop)) as runtime:
        await runtime.swap(PART)
        runtime.on_swap(PART, before=raising(ValueError("no")))
        await fail_to_swap(runtime)
    (failed,), (rolled_back,) = events.named("swap-failed"), events.named("swap-rollback")
    assert (failed["reason"], failed["rolled_back"], rolled_back["provider"]) == ("hook", True, "a")
