"""What is asked of the engine, and what it says it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from oneiric.core.candidate import Slot
from oneiric.core.reconcile import Build

Outcome = Literal["success", "failed", "rollback"]
LeakKind = Literal["held", "not-closed", "referenced"]
HISTORY: Final = 20
"""Swaps of a slot that are kept at hand."""


class Choice(NamedTuple):
    """What to put in place: the build, and the factory's settings with their secrets, read when they are needed."""

    build: Build
    settings: Callable[[], Mapping[str, Any]]


class SwapRequest(NamedTuple):
    """What was asked: whom to swap to (the resolver decides when None), who asked, and how.

    ``follow`` brings a slot to what precedence chooses and is nobody's decision; ``first`` runs before anything else,
    with the slot and ``by``.
    """

    provider: str | None = None
    by: str = "program"
    force: bool = False
    skip_health: bool = False
    dry_run: bool = False
    follow: bool = False
    first: Callable[[Slot[Any], str], Awaitable[Any]] | None = None

    @property
    def aim(self) -> tuple[object, ...]:
        """What two requests must share for one attempt to answer both. Each still waits for the drain, or does not."""
        return self.provider, self.skip_health, self.dry_run, self.follow, self.first


@dataclass(frozen=True)
class SwapNotice:
    """What a hook is told: who leaves (None at a first activation) and who comes."""

    slot: Slot[Any]
    previous: str
    provider: str
    old: Any
    new: Any


Hook = Callable[[SwapNotice], Any]


@dataclass(frozen=True)
class SwapReport:
    """What a swap did.

    ``duration`` is the seconds until callers moved; ``gap`` those in which nobody served, which is 0 unless the old
    instance was exclusive. ``soak`` is how long the old one still waits to take over again. ``changed`` is false when
    nothing had to be done.
    """

    slot: Slot[Any]
    previous: str
    provider: str
    duration: float
    changed: bool = True
    dry_run: bool = False
    gap: float = 0.0
    soak: float = 0.0
    cleanup_error: str = ""
    pin_error: str = ""

    def __str__(self) -> str:
        if self.dry_run:
            text = f"{self.slot}: {self.provider} was built, is healthy and was closed again; nothing changed"
        elif not self.changed:
            text = f"{self.slot}: {self.provider} serves already"
        else:
            text = f"{self.slot}: {self.previous or 'nobody'} -> {self.provider} in {self.duration * 1000:.1f} ms"
        text += f", {self.gap * 1000:.1f} ms without anybody" if self.gap else ""
        text += f", back to {self.previous} if unhealthy within {self.soak:g} s" if self.soak else ""
        return "; ".join([text, *(note for note in (self.cleanup_error, self.pin_error) if note)])


@dataclass(frozen=True)
class DrainReport:
    """What a drain did: ``leases`` is how many were still held when its time was up."""

    slot: Slot[Any]
    drained: bool
    leases: int


class SwapRecord(NamedTuple):
    """One finished attempt to put an instance in place; ``duration`` in seconds, until callers moved."""

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


class Leak(NamedTuple):
    """An instance that should be gone.

    ``held``: callers keep their leases past the drain timeout; it is closed when they end. ``not-closed``: its cleanup
    failed. ``referenced``: it was closed, and something still refers to it.
    """

    provider: str
    instance_id: str
    built_at: datetime
    kind: LeakKind
    leases: int
    holder: str
