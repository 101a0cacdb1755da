"""A provider that falls ill and recovers as it is told, and settings under which that is noticed."""

from __future__ import annotations

from typing import Any

import anyio

from oneiric import Runtime, Settings, Slot
from oneiric.testing import PART, Workshop
from tests.harness.slots import settings_of, use_once

INTERVAL = 10.0
THRESHOLD = 3
LIFECYCLE = {"health_interval": INTERVAL, "failure_threshold": THRESHOLD}
OTHER: Slot[Any] = Slot("adapter", "other")
ENOUGH = (THRESHOLD + 2) * INTERVAL  # for a quarantine


class Health:
    """Well or as told, and remembers when it was asked."""

    def __init__(self) -> None:
        self.answer: Any = True
        self.asked: list[float] = []

    async def __call__(self) -> Any:
        self.asked.append(anyio.current_time())
        return self.answer


def watched(slot: dict[str, Any] | None = None, **more: Any) -> Settings:
    """Return settings in which three failed probes in a row, ten seconds apart, are enough."""
    return settings_of(slot, **{**LIFECYCLE, **more})


FAILOVER = watched({"failover": True})


def two(workshop: Workshop, health: Health, **of_a: Any) -> list[Any]:
    """a, which is chosen and as healthy as told, and b."""
    return [workshop.candidate("a", priority=1, health=health, **of_a), workshop.candidate("b")]


async def fall_ill(runtime: Runtime, health: Health) -> None:
    """Activate a and let it fail its probes until it is in quarantine."""
    await use_once(runtime, PART)
    health.answer = False
    await anyio.sleep(ENOUGH)


def serving(runtime: Runtime) -> str:
    """Return who serves in PART."""
    return runtime.snapshot().record(PART).provider


def placing(runtime: Runtime, provider: str = "a") -> tuple[str, str]:
    """Return the resolver's verdict on *provider*, and its reason."""
    (found,) = (p for p in runtime.resolve(PART).placings if p.candidate.provider == provider)
    return found.verdict, found.reason
