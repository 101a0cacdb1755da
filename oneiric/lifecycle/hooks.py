"""Hooks: what a program or an operator wants to happen before callers move to a new instance, and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from oneiric.core.candidate import Slot
from oneiric.core.config import SlotSettings
from oneiric.errors import ActivationError
from oneiric.lifecycle.foreign import ForeignCalls
from oneiric.lifecycle.imports import import_factory
from oneiric.lifecycle.reports import Hook, SwapNotice
from oneiric.observability.describe import describe

When = Literal["before", "after"]


class _Declared(NamedTuple):
    before: Hook | None
    after: Hook | None


class Hooks:
    """Runs the hooks of each slot: those of the settings, then those a program declared, in its order."""

    def __init__(self, calls: ForeignCalls, settings: Callable[[Slot[Any]], SlotSettings]) -> None:
        self._calls = calls
        self._settings = settings
        self._declared: dict[Slot[Any], list[_Declared]] = {}

    def add(self, slot: Slot[Any], before: Hook | None, after: Hook | None) -> None:
        """Declare hooks of a program."""
        self._declared.setdefault(slot, []).append(_Declared(before, after))

    async def run(self, when: When, notice: SwapNotice, *, timeout: float) -> None:
        """Run every hook of the slot, each for at most *timeout* seconds.

        Raises ActivationError, reason ``hook``, at the first that raises, takes longer or cannot be imported.
        """
        settings = self._settings(notice.slot)
        path = settings.before_swap if when == "before" else settings.after_swap
        hooks: list[Hook | str] = [path] if path else []
        declared = (getattr(pair, when) for pair in self._declared.get(notice.slot, ()))
        hooks += [hook for hook in declared if hook is not None]
        for hook in hooks:
            await self._one(hook, when, notice, timeout)

    async def _one(self, hook: Hook | str, when: When, notice: SwapNotice, timeout: float) -> None:
        try:
            function: Any = hook
            if isinstance(hook, str):
                function = await self._calls.call(import_factory, timeout=timeout, arguments={"path": hook})

            def tell() -> Any:
                return function(notice)

            async def tell_async() -> Any:
                return await function(notice)

            from oneiric.lifecycle.foreign import is_async

            await self._calls.call(tell_async if is_async(function) else tell, timeout=timeout)
        except Exception as error:
            name = hook if isinstance(hook, str) else getattr(hook, "__qualname__", type(hook).__qualname__)
            raise ActivationError(
                f"{describe(error)} ({notice.slot}, {when}_swap hook {name})",
                reason="hook",
                hint=f"correct the hook, or take it out of slots: {notice.slot.key}: in the settings; then swap again",
            ) from error
