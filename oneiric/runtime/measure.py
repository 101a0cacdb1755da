"""All readings of a runtime: what was counted, and what is true now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import anyio
from anyio import to_thread

from oneiric.core.candidate import Slot
from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy
from oneiric.lifecycle.manager import Manager
from oneiric.observability.logs import Emit
from oneiric.observability.meters import Meters, Reading
from oneiric.plugins.discovery import Plugin
from oneiric.runtime.chooser import Chooser
from oneiric.runtime.gauges import Ranking, candidate_gauges, plugin_gauges, slot_gauges, wish_gauges
from oneiric.runtime.tally import Tally

SAMPLE_INTERVAL: Final = 60.0
"""Seconds between two log lines about a slot that is resolved all the time."""
_AT_ONCE: Final = 1000  # slots that are ranked in the event loop; more take a thread


class Measure:
    """Reads the meters and the gauges of a runtime."""

    def __init__(
        self,
        *,
        meters: Meters,
        tally: Tally,
        chooser: Chooser,
        manager: Manager,
        plugins: Callable[[], tuple[Plugin, ...]],
        emit: Emit,
    ) -> None:
        self._meters = meters
        self._tally = tally
        self._chooser = chooser
        self._manager = manager
        self._plugins = plugins
        self._emit = emit
        self._ranked: tuple[Registry, Policy, Ranking] | None = None

    async def run(self) -> None:
        """Tell once a minute, for ever, who filled the slots that were resolved."""
        while True:
            await anyio.sleep(SAMPLE_INTERVAL)
            self._gather()
            for slot, times in self._tally.take_succeeded():
                self._tell(slot, times)

    async def read(self) -> tuple[Reading, ...]:
        """Return every counter, histogram and gauge."""
        self._gather()
        ranked, filled = await self._candidates()
        leases = Counter({slot.domain: 0 for slot in self._manager.slots})
        for slot in self._manager.slots:
            leases[slot.domain] += self._manager.instances.held_leases(slot)
        return (
            *self._meters.read(),
            *ranked,
            *wish_gauges(self._chooser.policy, self._wanted() - filled),
            *slot_gauges(self._manager.slots.values(), leases),
            *plugin_gauges(self._plugins()),
        )

    def _gather(self) -> None:
        """Put into the meters what was resolved since the last time."""
        self._chooser.gather()
        for slot, live in tuple(self._manager.slots.items()):
            granted = live.take_granted()
            if granted:
                self._tally.add(slot, "", granted, known=self._chooser.is_known(slot))

    def _tell(self, slot: Slot[Any], times: int) -> None:
        """Report that *slot* was resolved *times* times: one line for all of them."""
        begun = perf_counter()
        resolution = self._chooser.explain(slot)
        self._tally.ranked(slot, perf_counter() - begun)
        if resolution.winner is not None:
            self._emit(
                "resolver-decision",
                domain=slot.domain,
                key=slot.key,
                provider=resolution.winner.provider,
                outcome="success",
                error="",
                reason="",
                suppressed=times - 1,
            )

    async def _candidates(self) -> Ranking:
        """Rank every slot, once for each registry and policy there is."""
        registry, policy = self._chooser.registry, self._chooser.policy
        if self._ranked is None or self._ranked[0] is not registry:
            for slot, candidates in registry.by_slot.items():
                for candidate in candidates:
                    self._meters.admit(slot.domain, slot.key, candidate.provider)
        if self._ranked is None or self._ranked[0] is not registry or self._ranked[1] is not policy:
            self._tally.admit(policy.selections)
            known = {slot: answer.resolution for slot, answer in self._chooser.answers.items()}
            if len(registry.by_slot) <= _AT_ONCE:
                found = candidate_gauges(registry, policy, known)
            else:
                found = await to_thread.run_sync(candidate_gauges, registry, policy, known)
            self._ranked = registry, policy, found
        return self._ranked[2]

    def _wanted(self) -> set[Slot[Any]]:
        """Return the slots that are selected, pinned or in use."""
        in_use = (slot for slot, live in self._manager.slots.items() if live.is_wanted)
        return {*self._chooser.policy.selections, *in_use}
