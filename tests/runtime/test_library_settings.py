"""The runtime as a library: new settings take effect, providers are given theirs, and no secret is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import msgspec
import pytest

from oneiric import Candidate, Runtime, Settings, Slot, SwapFailedError
from oneiric.config.loader import load
from oneiric.core.config import PluginsSettings
from oneiric.core.states import Activity
from oneiric.errors import ConfigError
from oneiric.runtime.state import StateStore
from oneiric.testing import PART, Events, Part, Workshop, bare_settings
from tests.harness.slots import BARE, eventually

pytestmark = pytest.mark.anyio
OTHER: Slot[Any] = Slot("service", "other")


# New settings


async def test_new_selection_swaps_its_slot_and_no_other(adapters: Any, workshop: Workshop) -> None:
    async with Runtime.open(adapters(""), environ={}) as runtime:
        runtime.register(workshop.candidate("a", priority=1), workshop.candidate("b"))
        runtime.register(workshop.candidate("o", slot=OTHER))
        for slot in (PART, OTHER):
            async with runtime.use(slot):
                pass
        steps = await runtime.apply(adapters("selections: {part: b}"))
    assert [(step.slot, step.action, step.provider) for step in steps] == [(PART, "swap", "b")]
    assert [part.provider for part in workshop.built] == ["a", "o", "b"]


async def test_disabled_names_that_nothing_is_called_by_are_told_when_plugins_are_looked_for(events: Events) -> None:
    def disabling(*names: str) -> Settings:
        plain = bare_settings()
        plugins = PluginsSettings(disabled=names)
        return msgspec.structs.replace(plain, app=msgspec.structs.replace(plain.app, plugins=plugins))

    async with Runtime.open(disabling("oneiric", "shpo"), sink=events, environ={}) as runtime:
        await runtime.apply(disabling("oneiric", "shpo"))
        await runtime.apply(disabling("oneiric", "stok"))
    assert [told["plugin"] for told in events.named("plugin-unmatched")] == ["shpo", "stok"]


async def test_same_settings_again_change_nothing(adapters: Any, workshop: Workshop) -> None:
    async with Runtime.open(adapters("selections: {part: b}"), environ={}) as runtime:
        runtime.register(workshop.candidate("b"))
        async with runtime.use(PART):
            pass
        assert await runtime.apply(adapters("selections: {part: b}")) == ()


async def test_changed_provider_settings_build_the_provider_anew(adapters: Any, workshop: Workshop) -> None:
    async with Runtime.open(adapters("provider_settings: {a: {size: 1}}"), environ={}) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART):
            pass
        (step,) = await runtime.apply(adapters("provider_settings: {a: {size: 2}}"))
        async with runtime.use(PART) as part:
            assert (part.settings, step.reason) == ({"size": 2}, "settings of a changed")


async def test_changed_settings_of_another_provider_change_nothing(adapters: Any, workshop: Workshop) -> None:
    async with Runtime.open(adapters("provider_settings: {a: {size: 1}}"), environ={}) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART):
            pass
        assert await runtime.apply(adapters("provider_settings: {a: {size: 1}, b: {size: 2}}")) == ()


async def test_settings_for_the_key_win_over_those_for_the_provider(adapters: Any, workshop: Workshop) -> None:
    both = "provider_settings: {a: {size: 1}, part/a: {size: 2}}"
    async with Runtime.open(adapters(both), environ={}) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART) as part:
            assert part.settings == {"size": 2}


async def test_new_settings_that_break_the_slot_leave_the_old_instance(adapters: Any) -> None:
    def build(size: int = 1) -> Part:
        return Part(f"size {size}")

    async with Runtime.open(adapters(""), environ={}) as runtime:
        runtime.register(Candidate(slot=PART, provider="a", factory=build))
        async with runtime.use(PART):
            pass
        await runtime.apply(adapters("provider_settings: {a: {siez: 2}}"))
        async with runtime.use(PART) as part:
            assert await part.work() == "size 1"


async def test_selection_of_nobody_keeps_the_instance(adapters: Any, workshop: Workshop) -> None:
    async with Runtime.open(adapters(""), environ={}) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART):
            pass
        (step,) = await runtime.apply(adapters("selections: {part: nobody}"))
        async with runtime.use(PART) as part:
            assert (await part.work(), step.action) == ("a", "keep")


async def test_clashing_candidates_in_new_settings_change_nothing(adapters: Any, workshop: Workshop) -> None:
    settings = adapters("")
    offer = "{key: part, provider: p, factory: 'm:f'}"
    twice = adapters(f"selections: {{part: p}}\ncandidates: [{offer}]")
    domains = dict(twice.domains)
    domains["adapter"] = type(domains["adapter"])(candidates=domains["adapter"].candidates * 2)
    async with Runtime.open(settings, environ={}) as runtime:
        runtime.register(workshop.candidate("a"))
        async with runtime.use(PART):
            pass
        before = runtime.snapshot()
        with pytest.raises(ConfigError):
            await runtime.apply(type(settings)(app=settings.app, domains=domains))
        assert (runtime.snapshot(), runtime.settings) == (before, settings)


async def test_weaker_trust_is_held_until_a_restart(write: Any, events: Events) -> None:
    strict = load(write(app=BARE + "remote: {require_signature: true}"), environ={})
    loose = load(write(app=BARE + "remote: {require_signature: false}"), environ={})
    async with Runtime.open(strict, sink=events, environ={}) as runtime:
        await runtime.apply(loose)
        assert runtime.settings.app.remote.require_signature
    assert [event["setting"] for event in events.named("config-held")] == ["remote.require_signature"]


async def test_new_timeouts_are_in_force_at_once(write: Any, workshop: Workshop) -> None:
    def bounded(seconds: float) -> Settings:
        return load(write(app=BARE + f"lifecycle: {{activation_timeout: {seconds}}}"), environ={})

    async def hang() -> None:
        await anyio.sleep_forever()

    async with Runtime.open(bounded(86_400), environ={}) as runtime:
        runtime.register(workshop.candidate("a", build=hang))
        await runtime.apply(bounded(0.01))
        with pytest.raises(SwapFailedError, match=r"no answer within 0.01 s"):
            await runtime.swap(PART)


# Settings of a provider


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{ulr: x}", "'ulr' is not a setting of the factory (did you mean 'url'?); 'url' is needed and not set"),
        ("{url: x, zzz: 1}", "'zzz' is not a setting of the factory (accepted: url, size)"),
        ("{}", "'url' is needed and not set"),
    ],
)
async def test_provider_settings_that_do_not_fit_are_explained(given: str, says: str, adapters: Any) -> None:
    def build(url: str, *, size: int = 1) -> Part:
        return Part(url)

    async with Runtime.open(adapters(f"provider_settings: {{a: {given}}}"), environ={}) as runtime:
        runtime.register(Candidate(slot=PART, provider="a", factory=build))
        with pytest.raises(SwapFailedError) as caught:
            await runtime.swap(PART)
    assert says in str(caught.value)


# Secrets


CANARY = "hunter2-canary"


@pytest.fixture
async def leaky(write: Any, store: StateStore, events: Events) -> AsyncIterator[Runtime]:
    """A runtime whose provider puts its password into every error it raises."""

    class Leaky(Part):
        def __init__(self, password: str) -> None:
            super().__init__("leaky")
            self.password = password

        async def health(self) -> bool:
            raise ConnectionError(f"redis://:{self.password}@127.0.0.1 refused")

        async def aclose(self) -> None:
            raise OSError(f"cannot log out with {self.password}")

    directory = write(adapters="provider_settings: {leaky: {password: '${env:PASSWORD}'}}")
    environ = {"PASSWORD": CANARY}
    async with Runtime.open(directory, sink=events, store=store, environ=environ) as runtime:
        runtime.register(Candidate(slot=PART, provider="leaky", factory=Leaky))
        yield runtime


async def test_secret_reaches_its_factory(leaky: Runtime) -> None:
    await leaky.swap(PART, skip_health=True)
    async with leaky.use(PART) as part:
        assert part.password == CANARY


async def test_secret_is_in_no_event(leaky: Runtime, events: Events) -> None:
    with pytest.raises(SwapFailedError):
        await leaky.swap(PART)
    await leaky.swap(PART, skip_health=True)
    await leaky.probe(PART)
    assert "cleanup-failed" in events
    assert CANARY not in json.dumps(events.all)


async def test_secret_is_in_no_error(leaky: Runtime) -> None:
    with pytest.raises(SwapFailedError) as caught:
        await leaky.swap(PART)
    assert CANARY not in f"{caught.value} {caught.value.render()} {caught.value.hint}"


async def test_secret_is_in_no_snapshot(leaky: Runtime) -> None:
    with pytest.raises(SwapFailedError):
        await leaky.swap(PART)
    await leaky.swap(PART, skip_health=True)
    await leaky.probe(PART)
    record = leaky.snapshot().record(PART)
    assert CANARY not in repr((record.last_error, record.health, record.history))


async def test_secret_is_in_no_report(leaky: Runtime, workshop: Workshop) -> None:
    await leaky.swap(PART, skip_health=True)
    leaky.register(workshop.candidate("other"))
    assert CANARY not in str(await leaky.swap(PART, provider="other"))


async def test_secret_is_not_written_to_the_state_directory(leaky: Runtime, store: StateStore) -> None:
    with pytest.raises(SwapFailedError):
        await leaky.swap(PART)
    await leaky.set_activity(PART, Activity.PAUSED)  # makes the file, which two may not do at once
    await eventually(lambda: bool(store.load().history))
    assert CANARY.encode() not in content(store)


def content(store: StateStore) -> bytes:
    """Return all bytes in the state directory."""
    found = b""
    for path in store.path.parent.iterdir():
        with suppress(FileNotFoundError):  # SQLite's own files come and go
            found += path.read_bytes()
    return found


async def test_missing_secret_rejects_its_provider_by_name(write: Any, workshop: Workshop) -> None:
    directory = write(adapters="provider_settings: {a: {password: '${env:PASSWORD}'}}")
    async with Runtime.open(directory, environ={}) as runtime:
        runtime.register(workshop.candidate("a", priority=1), workshop.candidate("b"))
        resolution = runtime.resolve(PART)
    assert resolution.winner is not None
    assert (resolution.winner.provider, "PASSWORD is not set" in str(resolution)) == ("b", True)
