"""What is alive: instances, and the slots they fill."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio

from oneiric.core.candidate import Slot
from oneiric.core.pulse import Pulse
from oneiric.core.reconcile import Build
from oneiric.core.states import Activity, State, Step, advance, shown
from oneiric.errors import ActivationError, ConfigError, NoCandidateError, OneiricError, SlotUnavailableError
from oneiric.lifecycle.queue import Queue
from oneiric.lifecycle.reports import HISTORY, Choice, Health, SwapRecord


class Instance:
    """One built instance: its value, what it was built from, and how many leases are on it.

    ``leases`` belongs to the event loop, ``thread_leases`` to whoever holds ``guard``. A lease that ends looks at
    ``awaited`` alone, so that it costs next to nothing while nobody waits for the last one.
    """

    __slots__ = (
        "aside",
        "awaited",
        "build",
        "built_at",
        "choice",
        "closed",
        "guard",
        "holder",
        "identifier",
        "idle",
        "leaked",
        "leases",
        "memory_bytes",
        "thread_leases",
        "value",
    )

    def __init__(
        self,
        value: Any,
        choice: Choice,
        *,
        identifier: str,
        built_at: datetime,
        memory_bytes: int = 0,
        aside: bool = False,
    ) -> None:
        self.value = value
        self.aside = aside  # built to be looked at, not to serve
        self.choice = choice
        self.build: Build = choice.build
        self.identifier = identifier
        self.built_at = built_at
        self.memory_bytes = memory_bytes
        self.leases = 0
        self.thread_leases = 0
        self.guard = threading.Lock()
        self.holder = ""
        self.awaited = False
        self.leaked = False
        self.idle: anyio.Event | None = None
        self.closed: anyio.Event | None = None  # there once closing began, set once it ended

    @property
    def slot(self) -> Slot[Any]:
        """What it fills."""
        return self.build.candidate.slot

    @property
    def provider(self) -> str:
        """Who offered it."""
        return self.build.candidate.provider

    @property
    def held(self) -> int:
        """How many leases there are on it."""
        return self.leases + self.thread_leases

    def let_go(self) -> None:
        """Note, in the event loop, that a lease on an awaited instance ended."""
        if not self.held and self.idle is not None:
            self.idle.set()

    async def wait_idle(self) -> None:
        """Wait until the instance has no lease."""
        self.awaited = True  # before the count is read: a thread counts down before it reads this
        while self.held:
            if self.idle is None or self.idle.is_set():
                self.idle = anyio.Event()
            await self.idle.wait()


class LiveSlot:
    """One slot in use. ``serving`` is what a new caller gets at once; None sends the caller to ``wait_serving``.

    ``granted`` counts the leases given until someone gathers them.
    """

    def __init__(self, slot: Slot[Any], activate: Callable[[LiveSlot], Awaitable[None]], token: Any) -> None:
        self.slot = slot
        self.serving: Instance | None = None
        self.current: Instance | None = None
        self.state = State.INACTIVE
        self.activity = Activity.OPEN
        self.note = ""
        self.queue = Queue(slot)
        self.token = token
        self.guard = threading.Lock()
        self.thread = threading.get_ident()
        self.granted = 0
        self.thread_granted = 0
        self.automatic: deque[float] = deque(maxlen=1000)
        self.pooled: Instance | None = None
        self.pulse = Pulse()
        self.outcomes: Counter[str] = Counter()
        self.history: deque[SwapRecord] = deque(maxlen=HISTORY)
        self.last_error = ""
        self.health: Health | None = None
        self._activate = activate
        self._changed = anyio.Event()

    @property
    def shown(self) -> State:
        """The state an operator sees."""
        return shown(self.state, self.activity)

    @property
    def is_wanted(self) -> bool:
        """Whether someone wants the slot filled: it is, it is about to be, or the last attempt to fill it failed."""
        return self.current is not None or self.state in (State.FAILED, State.ACTIVATING, State.SWAPPING)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to tell of the slot: no attempt ever built for it, and no operator stopped it."""
        idle = self.state is State.INACTIVE and not self.queue.working
        return idle and self.activity is Activity.OPEN and not self.history

    def step(self, step: Step) -> None:
        """Move along the state table."""
        self.state = advance(self.state, step)
        self.announce()

    def point(self, instance: Instance | None) -> Instance | None:
        """Give callers *instance* from now on; return the one before it, which nobody new can reach."""
        old, self.current = self.current, instance
        self._serve()
        return old

    def admit(self, activity: Activity, note: str = "") -> None:
        """Allow new leases or stop them."""
        self.activity, self.note = activity, note
        self._serve()

    def _serve(self) -> None:
        is_open = self.activity is Activity.OPEN and self.state is not State.STOPPED
        with self.guard:  # a thread must not find the old one here and count its lease after we looked at the count
            self.serving = self.current if is_open else None
        self.announce()

    def announce(self) -> None:
        """Let callers look again who wait for an instance."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def wait_change(self) -> None:
        """Wait until there is a reason to look again."""
        await self._changed.wait()

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
        if self.state is State.SWAPPING:  # an exclusive instance gave way: its successor comes, or itself again
            await self.wait_change()
        elif self.current is None:
            await self._activate(self)

    def take_granted(self) -> int:
        """Return how many leases were given since the last call; run it in the event loop."""
        granted, self.granted = self.granted, 0
        with self.guard:
            granted, self.thread_granted = granted + self.thread_granted, 0
        return granted


def why_unresolved(error: OneiricError) -> str:
    """Return why a slot could not be resolved to an instance, in a word of the catalog; "" when that is not why."""
    if isinstance(error, NoCandidateError):
        return error.reason
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return "config"
        cause = cause.__cause__
    return "unhealthy" if isinstance(error, ActivationError) else ""
