"""The runtime as a library: what a program that embeds it relies on."""

from __future__ import annotations

import gc
import sqlite3
import weakref
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest

from oneiric import Candidate, NoCandidateError, Runtime, Slot
from oneiric.core.states import Activity
from oneiric.errors import ConfigError
from oneiric.runtime.state import StateStore
from oneiric.testing import PART, Events, Workshop, bare_settings
from tests.harness.slots import eventually

pytestmark = pytest.mark.anyio
OTHER: Slot[Any] = Slot("service", "other")


class Cache(Protocol):
    async def set(self, key: str, value: str) -> None: ...
    async def get(self, key: str) -> str: ...


class MemoryCache:
    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.values: dict[str, str] = {}

    async def set(self, key: str, value: str) -> None:
        self.values[key] = value

    async def get(self, key: str) -> str:
        return self.prefix + self.values[key]


CACHE: Slot[Cache] = Slot[Cache]("adapter", "cache")


# First steps


async def test_program_of_the_readme_works() -> None:
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(
            Candidate(slot=CACHE, provider="memory", factory=MemoryCache),
            Candidate(slot=CACHE, provider="prefixed", factory=MemoryCache, priority=10),
        )
        async with runtime.use(CACHE) as cache:
            await cache.set("greeting", "hello")
            assert await cache.get("greeting") == "hello"
        assert str(runtime.resolve(CACHE)).splitlines()[0] == "adapter/cache: prefixed (active)"
        assert (await runtime.swap(CACHE, provider="memory")).previous == "prefixed"


async def test_runtime_without_a_settings_directory_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workshop: Workshop
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Runtime.open(environ={}) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART, provider="a")
    assert not list(tmp_path.iterdir())


async def test_settings_directory_decides(write: Any, workshop: Workshop) -> None:
    async with Runtime.open(write(adapters="selections: {part: b}"), environ={}) as runtime:
        runtime.register(workshop.candidate("a", priority=99), workshop.candidate("b"))
        async with runtime.use(PART) as part:
            assert part.provider == "b"


async def test_invalid_settings_directory_is_refused_as_itself(write: Any) -> None:
    with pytest.raises(ConfigError, match=r"adapters\.yml:1"):
        async with Runtime.open(write(adapters="selektions: {}"), environ={}):
            pass


async def test_clashing_candidates_in_the_settings_are_refused_as_themselves(write: Any) -> None:
    twice = "candidates: [{key: a, provider: p, factory: 'm:f'}, {key: a, provider: p, factory: 'm:g'}]"
    with pytest.raises(ConfigError, match="p"):
        async with Runtime.open(write(adapters=twice), environ={}):
            pass


async def test_candidates_of_the_settings_serve(write: Any) -> None:
    adapters = "candidates: [{key: box, provider: ordered, factory: 'collections:OrderedDict'}]"
    box: Slot[Any] = Slot("adapter", "box")
    async with Runtime.open(write(adapters=adapters), environ={}) as runtime, runtime.use(box) as value:
        assert type(value).__name__ == "OrderedDict"


async def test_slot_without_candidates_says_so() -> None:
    async with Runtime.open(bare_settings()) as runtime:
        with pytest.raises(NoCandidateError, match="no candidate is registered"):
            async with runtime.use(PART):
                pass


async def test_factory_that_takes_the_runtime_is_given_it() -> None:
    class Report:
        def __init__(self, runtime: Runtime) -> None:
            self.runtime = runtime

    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(Candidate(slot=OTHER, provider="report", factory=Report))
        async with runtime.use(OTHER) as report:
            assert report.runtime is runtime


async def test_runtime_and_what_was_registered_with_it_are_freed_after_close() -> None:
    class Program:
        def __init__(self, runtime: Runtime) -> None:
            self.runtime = runtime
            runtime.register(Candidate(slot=OTHER, provider="bound", factory=self.build))

        async def build(self) -> object:
            return object()

    async with Runtime.open(bare_settings()) as runtime:
        program = weakref.ref(Program(runtime))
        async with runtime.use(OTHER):
            pass
    del runtime
    # Leaving the context ends with a CancelledError that asyncio throws into this task and the task group swallows. The
    # interpreter keeps it, with its traceback, until that step of the task is over; since 3.12 a coroutine's frame in a
    # traceback keeps the frames that awaited it (f_back) and their variables: `Runtime.open`, and in it the runtime.
    await anyio.lowlevel.checkpoint()
    gc.collect()
    assert program() is None


# Registration while in use


async def test_better_candidate_takes_over_when_it_is_registered(workshop: Workshop) -> None:
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART):
            pass
        runtime.register(workshop.candidate("b", priority=1))
        await eventually(lambda: runtime.snapshot().record(PART).provider == "b")


async def test_worse_candidate_changes_nothing_when_it_is_registered(workshop: Workshop) -> None:
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(workshop.candidate("a", priority=1))
        async with runtime.use(PART):
            pass
        runtime.register(workshop.candidate("b"))
        await runtime.reconcile()
    assert [part.provider for part in workshop.built] == ["a"]


async def test_better_candidate_that_fails_leaves_the_old_one(workshop: Workshop) -> None:
    async def broken() -> None:
        raise ValueError("no")

    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART):
            pass
        runtime.register(workshop.candidate("b", priority=1, build=broken))
        await eventually(lambda: runtime.snapshot().record(PART).outcomes.get("failed", 0) == 1)
        async with runtime.use(PART) as part:
            assert await part.work() == "a"


async def test_candidate_offered_twice_is_refused_and_nothing_is_registered(workshop: Workshop) -> None:
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(workshop.candidate("a"))
        with pytest.raises(ConfigError, match="twice"):
            runtime.register(workshop.candidate("b"), workshop.candidate("a"))
        assert [p.candidate.provider for p in runtime.resolve(PART).placings] == ["a"]


async def test_resolve_answers_anew_after_a_registration(workshop: Workshop) -> None:
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(workshop.candidate("a"))
        before = runtime.resolve(PART).require().provider
        runtime.register(workshop.candidate("b", priority=1))
        assert (before, runtime.resolve(PART).require().provider) == ("a", "b")


async def test_resolve_for_capabilities_is_not_remembered_as_the_answer(workshop: Workshop) -> None:
    async with Runtime.open(bare_settings()) as runtime:
        runtime.register(workshop.candidate("a", priority=1), workshop.candidate("b", capabilities=frozenset({"ttl"})))
        able = runtime.resolve(PART, capabilities=frozenset({"ttl"})).require().provider
        assert (able, runtime.resolve(PART).require().provider) == ("b", "a")


# Pins and activities


async def test_pin_survives_a_restart(store: StateStore, workshop: Workshop) -> None:
    for restart in range(2):
        async with Runtime.open(bare_settings(), store=store) as runtime:
            runtime.register(workshop.candidate("a", priority=1), workshop.candidate("b"))
            if not restart:
                await runtime.swap(PART, provider="b", by="alice")
    resolution = runtime.resolve(PART)
    assert resolution.winner is not None
    assert (resolution.winner.provider, "pin names b (by alice since " in str(resolution)) == ("b", True)


async def test_swap_without_a_provider_pins_nothing(store: StateStore, workshop: Workshop) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART)
    assert store.load().pins == {}


async def test_dry_run_pins_nothing(store: StateStore, workshop: Workshop) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART, provider="a", dry_run=True)
    assert store.load().pins == {}


async def test_pin_is_on_disk_when_the_swap_returns(store: StateStore, workshop: Workshop) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART, provider="a")
        assert store.load().pins[PART].provider == "a"


async def test_pin_wins_over_a_selection(store: StateStore, adapters: Any, workshop: Workshop) -> None:
    async with Runtime.open(adapters("selections: {part: a}"), store=store, environ={}) as runtime:
        runtime.register(workshop.candidate("a"), workshop.candidate("b"))
        await runtime.swap(PART, provider="b")
        await runtime.apply(adapters("selections: {part: a}\nprovider_settings: {a: {size: 1}}"))
        assert runtime.snapshot().record(PART).provider == "b"


async def test_unpin_goes_back_to_precedence(store: StateStore, workshop: Workshop) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a", priority=1), workshop.candidate("b"))
        await runtime.swap(PART, provider="b")
        pin, report, unrecorded = await runtime.unpin(PART)
    assert pin is not None
    assert report is not None
    assert (pin.provider, report.provider, unrecorded, store.load().pins) == ("b", "a", "", {})


async def test_unpin_without_a_pin_does_nothing(workshop: Workshop, events: Events) -> None:
    async with Runtime.open(bare_settings(), sink=events) as runtime:
        runtime.register(workshop.candidate("a"))
        assert await runtime.unpin(PART) == (None, None, "")
    assert "selection-unpinned" not in events


async def test_pause_survives_a_restart_with_its_note(store: StateStore, workshop: Workshop) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        await runtime.set_activity(PART, Activity.PAUSED, note="lunch")
    async with Runtime.open(bare_settings(), store=store) as runtime:
        record = runtime.snapshot().record(PART)
    assert (str(record.state), record.note) == ("paused", "lunch")


async def test_resume_is_remembered(store: StateStore) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        await runtime.set_activity(PART, Activity.PAUSED)
        await runtime.set_activity(PART, Activity.OPEN)
    assert store.load().activities == {}


async def test_history_survives_a_restart(store: StateStore, workshop: Workshop) -> None:
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a"), workshop.candidate("b"))
        for provider in "ab":
            await runtime.swap(PART, provider=provider, by="alice")
    async with Runtime.open(bare_settings(), store=store) as runtime:
        history = runtime.snapshot().record(PART).history
    assert [(r.previous, r.provider, r.outcome, r.by) for r in history] == [
        ("", "a", "success", "alice"),
        ("a", "b", "success", "alice"),
    ]


async def test_eager_runtime_activates_what_is_selected_or_pinned(
    store: StateStore, adapters: Any, workshop: Workshop
) -> None:
    offer = "candidates: [{key: box, provider: dict, factory: 'collections:OrderedDict'}]"
    settings = adapters(f"selections: {{box: dict}}\n{offer}")
    async with Runtime.open(settings, store=store, eager=True, environ={}) as runtime:
        assert runtime.snapshot().record(Slot[Any]("adapter", "box")).provider == "dict"


# A state directory that fails


class FullDisk(StateStore):
    """A store on a disk without room."""

    full = True

    def _open(self) -> Any:
        if self.full:
            raise OSError(28, "No space left on device")
        return super()._open()


class Locked(StateStore):
    """A store that another program holds."""

    def _open(self) -> Any:
        raise sqlite3.OperationalError("database is locked")


@pytest.mark.parametrize("kind", [FullDisk, Locked])
async def test_swap_is_done_although_it_cannot_be_recorded(
    kind: type[StateStore], tmp_path: Path, workshop: Workshop
) -> None:
    async with Runtime.open(bare_settings(), store=kind(tmp_path)) as runtime:
        runtime.register(workshop.candidate("a", priority=1), workshop.candidate("b"))
        report = await runtime.swap(PART, provider="b")
        assert "not recorded for the next start" in report.pin_error
        assert runtime.snapshot().record(PART).provider == "b"


async def test_state_that_cannot_be_written_is_reported_once(
    tmp_path: Path, workshop: Workshop, events: Events
) -> None:
    async with Runtime.open(bare_settings(), store=FullDisk(tmp_path), sink=events) as runtime:
        runtime.register(workshop.candidate("a"), workshop.candidate("b"))
        for provider in "abab":
            await runtime.swap(PART, provider=provider)
        assert "No space left" in runtime.degraded
    assert len(events.named("state-degraded")) == 1


async def test_history_that_could_not_be_written_is_written_later(tmp_path: Path, workshop: Workshop) -> None:
    store = FullDisk(tmp_path)
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART, provider="a")
        store.full = False
    assert [record.provider for record in store.load().history] == ["a"]


async def test_state_that_can_be_written_again_is_no_longer_degraded(tmp_path: Path, workshop: Workshop) -> None:
    store = FullDisk(tmp_path)
    async with Runtime.open(bare_settings(), store=store) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART, provider="a")
        store.full = False
        await runtime.swap(PART, provider="a")
        assert runtime.degraded == ""


async def test_corrupt_state_is_moved_aside_and_reported(store: StateStore, workshop: Workshop, events: Events) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"this is no database, and it is long enough to look like one" * 100)
    async with Runtime.open(bare_settings(), store=store, sink=events) as runtime:
        runtime.register(workshop.candidate("a"))
        await runtime.swap(PART, provider="a")
    (event,) = events.named("state-discarded")
    assert event["file"] == str(store.path.with_name("state.db.discarded-1"))
    assert store.load().pins[PART].provider == "a"


@pytest.mark.parametrize("key", [None, "part", "other", "absent"])
@pytest.mark.parametrize("domain", [None, "adapter", "service"])
async def test_snapshot_of_some_slots_has_what_the_whole_has_of_them(domain: str | None, key: str | None) -> None:
    workshop = Workshop()
    async with Runtime.open(bare_settings()) as runtime:
        slots = [Slot[Any](domain, key) for domain in ("adapter", "service") for key in ("part", "other")]
        runtime.register(*(workshop.candidate("only", slot=slot) for slot in slots))
        async with runtime.use(slots[0]):
            some = runtime.snapshot(domain=domain, key=key).slots
            assert some == runtime.snapshot().select(domain=domain, key=key)
