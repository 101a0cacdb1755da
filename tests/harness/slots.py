"""Settings of slots, runtimes opened on them, and what callers do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from oneiric import Candidate, Runtime, Settings
from oneiric.core.config import DomainSettings, SlotSettings
from oneiric.testing import PART, Events, bare_settings

BARE = "plugins: {enabled: false}\n"
"""An app.yml without plugins."""


def settings_of(
    slot: Mapping[str, Any] | None = None,
    *,
    selections: Mapping[str, str] | None = None,
    provider_settings: Mapping[str, dict[str, Any]] | None = None,
    **lifecycle: float,
) -> Settings:
    """Return settings in which PART is swapped as *slot* says, without plugins."""
    bare = bare_settings(**lifecycle)
    adapters = DomainSettings(
        slots={"part": SlotSettings(**(slot or {}))},
        selections=dict(selections or {}),
        provider_settings=dict(provider_settings or {}),
    )
    return msgspec.structs.replace(bare, domains={**bare.domains, "adapter": adapters})


@asynccontextmanager
async def running(settings: Settings, events: Events, *candidates: Candidate[Any]) -> AsyncIterator[Runtime]:
    """Open a runtime on *settings* that has the given candidates and nothing else."""
    async with Runtime.open(settings, sink=events, environ={}) as runtime:
        runtime.register(*candidates)
        yield runtime


async def settle(turns: int = 100) -> None:
    """Let everything happen that takes no time."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


async def eventually(holds: Callable[[], bool]) -> None:
    """Let other tasks run until *holds*; what a registration starts is done soon, not at once."""
    with anyio.fail_after(10):
        while not holds():
            await anyio.lowlevel.checkpoint()


async def use_once(runtime: Runtime, slot: Any = PART) -> str:
    """Take a lease, work, give it back; return who served."""
    async with runtime.use(slot) as part:
        served: str = await part.work()
        return served


async def hold(runtime: Runtime, release: anyio.Event, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
    """Hold a lease on PART until *release*, then work with it; starts with the instance."""
    async with runtime.use(PART) as part:
        task_status.started(part)
        await release.wait()
        await part.work()


async def pause() -> None:
    """Take a second of virtual time."""
    await anyio.sleep(1)
