"""What is alive: instances, and the slots they fill."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio

from oneiric.core.candidate import Slot
from oneiric.core.reconcile import Build
from oneiric.core.states import Activity, State, Step, advance, shown
from oneiric.errors import SlotUnavailableError
from oneiric.lifecycle.reports import HISTORY, Health, SwapRecord


class Instance:
    """One built instance: its value, what it was built from, and how many leases are on it.

    A lease that ends looks at ``awaited`` alone, so that it costs next to nothing while nobody waits for the last one.
    """

    __slots__ = ("awaited", "build", "built_at", "closed", "identifier", "idle", "leases", "value")

    def __init__(self, value: Any, build: Build, *, identifier: str, built_at: datetime) -> None:
        self.value = value
        self.build = build
        self.identifier = identifier
        self.built_at = built_at
        self.leases = 0
        self.awaited = False
        self.idle: anyio.Event | None = None
        self.closed: anyio.Event | None = None  # there once closing began, set once it ended

    @property
    def provider(self) -> str:
        """Who offered it."""
        return self.build.candidate.provider

    def let_go(self) -> None:
        """Note that a lease on an awaited instance ended."""
        if not self.leases and self.idle is not None:
            self.idle.set()

    async def wait_idle(self) -> None:
        """Wait until the instance has no lease."""
        while self.leases:
            self.awaited = True
            if self.idle is None or self.idle.is_set():
                self.idle = anyio.Event()
            await self.idle.wait()


class LiveSlot:
    """One slot in use. ``serving`` is what a new caller gets at once; None sends the caller to ``wait_serving``."""

    def __init__(self, slot: Slot[Any], activate: Callable[[LiveSlot], Awaitable[None]]) -> None:
        self.slot = slot
        self.serving: Instance | None = None
        self.current: Instance | None = None
        self.state = State.INACTIVE
        self.activity = Activity.OPEN
        self.note = ""
        self.lock = anyio.Lock()
        self.outcomes: Counter[str] = Counter()
        self.history: deque[SwapRecord] = deque(maxlen=HISTORY)
        self.last_error = ""
        self.health: Health | None = None
        self.leaked = 0
        self._activate = activate

    @property
    def shown(self) -> State:
        """The state an operator sees."""
        return shown(self.state, self.activity)

    def step(self, step: Step) -> None:
        """Move along the state table."""
        self.state = advance(self.state, step)

    def point(self, instance: Instance | None) -> Instance | None:
        """Give callers *instance* from now on; return the one before it, which nobody new can reach."""
        old, self.current = self.current, instance
        self.serving = instance if self.activity is Activity.OPEN else None
        return old

    def admit(self, activity: Activity, note: str = "") -> None:
        """Allow new leases or stop them."""
        self.activity, self.note = activity, note
        self.serving = self.current if activity is Activity.OPEN and self.state is not State.STOPPED else None

    async def wait_serving(self) -> None:
        """Return once ``serving`` may be set; raises SlotUnavailableError, or why no instance could be activated."""
        if self.state is State.STOPPED:
            raise SlotUnavailableError(f"{self.slot} is stopped: the runtime is closing")
        if self.activity is not Activity.OPEN:
            note = f" ({self.note})" if self.note else ""
            raise SlotUnavailableError(
                f"{self.slot} is {self.activity}{note}",
                hint=f"oneiric resume --domain {self.slot.domain} --key {self.slot.key}",
            )
        await self._activate(self)
