"""Calls into code that is not ours, under bounds that hold whatever it does.

A factory, probe or cleanup may block, hang, swallow its cancellation, exit the interpreter or answer after nobody
waits any more. So it never runs in a task of ours: an ``async def`` runs in a task of its own, anything else in a
daemon thread. When the bound is reached the call is cancelled if it can be and *abandoned*: counted until it ends, and
what it still delivers is handed to ``late`` to be closed.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from oneiric.observability.describe import printed

Late = Callable[[Any], Awaitable[None]]


class ForeignExit(Exception):  # noqa: N818 - named for what the foreign code did
    """Foreign code raised SystemExit, KeyboardInterrupt or another exception that would have ended the program."""


class _Call:
    """One call under way. ``abandoned`` is set once nobody waits for it any more."""

    __slots__ = ("abandoned", "cancel", "done", "error", "in_thread", "owner", "value")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.done = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.abandoned = False
        self.in_thread = False
        self.cancel: Callable[[], Any] = lambda: None


class ForeignCalls:
    """Runs foreign code and knows which calls are still running, and which of those were given up."""

    def __init__(self) -> None:
        self._running: set[_Call] = set()
        self._given_up: set[_Call] = set()  # those of them that are abandoned: few, where thousands may run
        self._tasks: set[Any] = set()
        self._ended = anyio.Event()

    @property
    def abandoned(self) -> int:
        """How many calls were given up and still run."""
        return len(self._given_up)

    def stuck(self, owner: object) -> int:
        """Return how many calls of *owner* were given up and still run."""
        return sum(call.owner == owner for call in self._given_up)

    async def settle(self, *, until: float) -> int:
        """Wait for the calls under way, at most until the instant *until*; return how many still run."""
        with anyio.move_on_at(until):
            while self._running:
                self._ended = anyio.Event()
                await self._ended.wait()
        return len(self._running)

    async def call(
        self,
        function: Callable[..., Any],
        /,
        *,
        timeout: float,
        late: Late | None = None,
        owner: object = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """Call *function* and return what it returns, awaited if need be.

        Args:
            timeout: seconds; raises TimeoutError past them, whatever the function does.
            late: receives the result when it arrives after that.
            owner: whose call it is, for ``stuck``.

        Raises what the function raises; ForeignExit in place of anything that is not an Exception.
        """
        call = _Call(owner)
        self._running.add(call)
        call.cancel = self._spawn(lambda: self._drive(call, function, arguments, late))
        taken = False
        try:
            with anyio.move_on_after(timeout):
                await call.done.wait()
            taken = call.done.is_set()
        finally:
            if not taken:
                self._abandon(call, late)
        if not taken:
            raise TimeoutError(f"no answer within {timeout:g} s")
        if call.error is None:
            return call.value
        if isinstance(call.error, Exception):
            raise call.error
        raise ForeignExit(f"{type(call.error).__name__}: {printed(call.error, str)}") from call.error

    def _abandon(self, call: _Call, late: Late | None) -> None:
        """Give *call* up: its caller was cancelled or its time is up."""
        call.abandoned = True
        if not call.done.is_set():
            self._given_up.add(call)
            if not call.in_thread:
                call.cancel()
        elif call.error is None and late is not None:  # it ended in the very turn in which its caller was cancelled
            self._running.add(call)
            self._given_up.add(call)
            self._spawn(lambda: self._hand_over(call, late))

    async def _hand_over(self, call: _Call, late: Late) -> None:
        try:
            await late(call.value)
        finally:
            self._end(call)

    def _end(self, call: _Call) -> None:
        self._running.discard(call)
        self._given_up.discard(call)
        self._ended.set()

    async def _drive(self, call: _Call, function: Callable[..., Any], arguments: Any, late: Late | None) -> None:
        try:
            if is_async(function):
                call.value = await function(**arguments)
            else:
                call.in_thread = True  # a thread cannot be cancelled: wait for it, so that its result is not lost
                value = await self._in_thread(lambda: function(**arguments))
                call.in_thread = False
                call.value = await value if inspect.isawaitable(value) else value
        except BaseException as error:
            call.error = error
        call.done.set()
        try:
            if call.abandoned and call.error is None and late is not None:
                with anyio.CancelScope(shield=True):  # this task was cancelled, and what arrived has to be closed
                    await late(call.value)
        finally:
            self._end(call)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        finished, outcome = anyio.Event(), {}
        token = anyio.lowlevel.current_token()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                outcome["value"] = context.run(function)
            except BaseException as error:
                outcome["error"] = error
            try:
                anyio.from_thread.run_sync(finished.set, token=token)
            except RuntimeError:  # the event loop ended before the thread did; nobody waits
                return

        threading.Thread(target=run, daemon=True, name="oneiric-foreign").start()
        await finished.wait()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    def _spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Any]:
        """Start a task that no task group of ours waits for; return what cancels it."""
        if "trio" in sys.modules and (trio := __import__("trio")).lowlevel.in_trio_run():
            scope = trio.CancelScope()

            async def scoped() -> None:
                with scope:
                    await run()

            trio.lowlevel.spawn_system_task(scoped, context=contextvars.copy_context())
            cancel: Callable[[], Any] = scope.cancel
            return cancel
        import asyncio

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether calling *function* gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
