"""Who may fill each slot now: the registry, what decides, and the answers so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

from anyio import to_thread
from msgspec.structs import replace

from oneiric.config.host import this_host
from oneiric.config.loader import Bars, policy
from oneiric.config.secrets import resolve_references, secret_values
from oneiric.core.candidate import Candidate, Slot
from oneiric.core.config import Settings
from oneiric.core.reconcile import Build
from oneiric.core.registry import Registry
from oneiric.core.resolution import Bar, Policy, Resolution, resolve
from oneiric.errors import OneiricError
from oneiric.lifecycle.live import why_unresolved
from oneiric.lifecycle.reports import Choice
from oneiric.observability.logs import Reporter
from oneiric.runtime.decisions import Decisions
from oneiric.runtime.remembered import Pin
from oneiric.runtime.tally import Answer, Tally


class Chooser:
    """Answers who fills a slot, from the current registry, settings, pins and quarantine.

    Args:
        pins: operators' choices; whoever changes one calls ``renew_pin``.
        bars: who is in quarantine just now.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pins: Mapping[Slot[Any], Pin],
        bars: Callable[[], Mapping[tuple[Slot[Any], str], Bar]],
        emit: Reporter,
        tally: Tally,
        environ: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.registry = Registry()
        self.policy = Policy()
        self._pins = pins
        self._pinned = {slot: pin.selection for slot, pin in pins.items()}
        self._bars = bars
        self._emit = emit
        self._environ = environ
        self._host = this_host()
        self._base = Policy()
        self.answers: dict[Slot[Any], Answer] = {}
        """Who won since the last change; the same dictionary always, so that a caller may look here first."""
        self._unfilled: dict[Slot[Any], Resolution] = {}
        self._tally = tally
        self._decisions = Decisions(emit)

    # What decides

    async def take_over(self, settings: Settings) -> None:
        """Decide by *settings* from now on. Files that hold secrets are looked at, so it runs in a thread."""
        environ, host = self._environ, self._host
        base = await to_thread.run_sync(lambda: policy(settings, host=host, pins={}, environ=environ))
        self.settings, self._base = settings, base
        self.renew()

    def renew(self) -> None:
        """Decide anew: the quarantine changed."""
        barred = self._base.barred
        self.policy = replace(
            self._base,
            selections=MappingProxyType({**self._base.selections, **self._pinned}),
            barred=barred.also(self._bars()) if isinstance(barred, Bars) else self._bars(),
        )
        self._forget()

    def renew_pin(self, slot: Slot[Any]) -> None:
        """Decide anew about *slot*: its pin changed. What was resolved for others stays."""
        pin = self._pins.get(slot)
        if pin is not None:
            self._pinned[slot] = pin.selection
        else:
            self._pinned.pop(slot, None)
        selections = MappingProxyType({**self._base.selections, **self._pinned})
        self.policy = replace(self.policy, selections=selections)
        self._unfilled.pop(slot, None)
        answer = self.answers.pop(slot, None)
        if answer is not None and answer.asked:
            self._tally.answered(answer.resolution, int(answer.asked))

    def offer(self, registry: Registry) -> None:
        """Choose from *registry* from now on."""
        self.registry = registry
        self._forget()

    def _forget(self) -> None:
        self.gather()
        self.answers.clear()
        self._unfilled.clear()

    # Answers

    def gather(self) -> None:
        """Put into the tally what was asked for since the last time."""
        for answer in tuple(self.answers.values()):
            asked, answer.asked = answer.asked, 0.0
            if asked:
                self._tally.answered(answer.resolution, int(asked))

    def ask(
        self, slot: Slot[Any], *, provider: str | None = None, capabilities: frozenset[str] = frozenset()
    ) -> Resolution:
        """Say who fills *slot* and why, to a program that wants to know: it is counted."""
        resolution = self.resolve(slot, provider=provider, capabilities=capabilities)
        self._tally.answered(resolution)
        return resolution

    def resolve(
        self, slot: Slot[Any], *, provider: str | None = None, capabilities: frozenset[str] = frozenset()
    ) -> Resolution:
        """Say who fills *slot* and why."""
        if provider is not None or capabilities:
            return resolve(self.registry, self.policy, slot, provider=provider, capabilities=capabilities)
        answer = self.answers.get(slot)
        if answer is not None:
            return answer.resolution
        resolution = self._unfilled.get(slot) or self._rank(slot)
        self._decisions.note(resolution)
        return resolution

    def _rank(self, slot: Slot[Any]) -> Resolution:
        begun = perf_counter()
        resolution = resolve(self.registry, self.policy, slot)
        self._tally.ranked(slot, perf_counter() - begun)
        if resolution.winner is not None:
            self.answers[slot] = Answer(resolution)
        elif resolution.placings:  # an unknown slot is not remembered: anyone could ask for any number of them
            self._unfilled[slot] = resolution
        return resolution

    def explain(self, slot: Slot[Any]) -> Resolution:
        """Say who fills *slot* and why, as a diagnosis: nothing is reported or remembered."""
        answer = self.answers.get(slot)
        if answer is not None:
            return answer.resolution
        return self._unfilled.get(slot) or resolve(self.registry, self.policy, slot)

    def refused(self, slot: Slot[Any], error: OneiricError) -> None:
        """Count a caller of *slot* who got no instance, when it is *error* that says why."""
        reason = why_unresolved(error)
        if reason:
            self._tally.add(slot, reason, known=self.is_known(slot))

    def is_known(self, slot: Slot[Any]) -> bool:
        """Say whether *slot* is registered or configured."""
        return slot in self.registry.by_slot or slot in self.policy.selections

    def wanted(self, slot: Slot[Any]) -> tuple[Resolution, Build | None]:
        """Return who should fill *slot*, and what its instance would be built from; it is counted."""
        resolution = self.ask(slot)
        return resolution, None if resolution.winner is None else self._build_of(resolution.winner)

    def choose(self, slot: Slot[Any], provider: str | None) -> Choice:
        """Return what to build; raises NoCandidateError. Secrets are read when the settings are asked for."""
        candidate = self.resolve(slot, provider=provider).require()
        declared = self._declared_settings(candidate)

        def settings() -> Mapping[str, Any]:
            resolved: Mapping[str, Any] = resolve_references(declared, environ=self._environ, base=Path())
            self._emit.hide(secret_values(resolved))
            return resolved

        return Choice(self._build_of(candidate), settings)

    def is_built_from(self, slot: Slot[Any], provider: str, identity: tuple[str, ...]) -> bool:
        """Say whether *provider* would now be built from what *identity* names."""
        candidates = self.registry.candidates(slot)
        return any(self._build_of(c).identity == identity for c in candidates if c.provider == provider)

    def _declared_settings(self, candidate: Candidate[Any]) -> Mapping[str, Any]:
        return self.settings.provider_settings(candidate.slot.domain, candidate.slot.key, candidate.provider)

    def _build_of(self, candidate: Candidate[Any]) -> Build:
        return Build(candidate, json.dumps(self._declared_settings(candidate), sort_keys=True, default=str))
