"""What is asked of the engine, and what it says it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from oneiric.core.candidate import Slot
from oneiric.core.reconcile import Build

Outcome = Literal["success", "failed", "rollback"]
HISTORY: Final = 20
"""Swaps of a slot that are kept at hand."""


class Choice(NamedTuple):
    """What to put in place: the build, and the factory's settings with their secrets, read when they are needed."""

    build: Build
    settings: Callable[[], Mapping[str, Any]]


class SwapRequest(NamedTuple):
    """What was asked: whom to swap to (the resolver decides when None), who asked, and how."""

    provider: str | None = None
    by: str = "program"
    force: bool = False
    skip_health: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class SwapReport:
    """What a swap did. ``duration`` in seconds up to the commit; ``changed`` is false when nothing had to be done."""

    slot: Slot[Any]
    previous: str
    provider: str
    duration: float
    changed: bool = True
    dry_run: bool = False
    cleanup_error: str = ""
    pin_error: str = ""

    def __str__(self) -> str:
        if self.dry_run:
            text = f"{self.slot}: {self.provider} was built, is healthy and was closed again; nothing changed"
        elif not self.changed:
            text = f"{self.slot}: {self.provider} serves already"
        else:
            text = f"{self.slot}: {self.previous or 'nobody'} -> {self.provider} in {self.duration * 1000:.1f} ms"
        return "; ".join([text, *(note for note in (self.cleanup_error, self.pin_error) if note)])


@dataclass(frozen=True)
class DrainReport:
    """What a drain did: ``leases`` is how many were still held when its time was up."""

    slot: Slot[Any]
    drained: bool
    leases: int


class SwapRecord(NamedTuple):
    """One finished attempt to put an instance in place; ``duration`` in seconds, up to the commit."""

    at: datetime
    slot: Slot[Any]
    provider: str
    previous: str
    outcome: Outcome
    reason: str
    error: str
    duration: float
    by: str


class Health(NamedTuple):
    """What a probe said and when; ``error`` is empty when it was healthy."""

    at: datetime
    error: str

    @property
    def healthy(self) -> bool:
        """Whether the instance said it can serve."""
        return not self.error
