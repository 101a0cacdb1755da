"""All candidates there are, as one immutable value.

A source (the program's code, a plugin, the settings, a manifest) is replaced whole: what it no longer lists is gone,
and registering the same source a thousand times leaves the registry as large as registering it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from oneiric.core.candidate import Candidate, Slot
from oneiric.errors import ConfigError, Problem

Candidates = tuple[Candidate[Any], ...]


class Registry(msgspec.Struct, frozen=True):
    """Candidates by source and by slot."""

    sources: Mapping[str, Candidates] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    by_slot: Mapping[Slot[Any], Candidates] = msgspec.field(default_factory=lambda: MappingProxyType({}))

    def candidates(self, slot: Slot[Any]) -> Candidates:
        """Return every candidate for *slot*, in no meaningful order."""
        return self.by_slot.get(slot, ())

    def slots(self, domain: str | None = None) -> Iterator[Slot[Any]]:
        """Iterate over the slots that have a candidate, sorted."""
        return iter(sorted(slot for slot in self.by_slot if domain is None or slot.domain == domain))

    def with_source(self, source: str, candidates: Iterable[Candidate[Any]]) -> Registry:
        """Return a registry in which *source* offers exactly *candidates*.

        Raises ConfigError, and so changes nothing, when the source offers one provider for one slot twice.
        """
        offered = tuple(c if c.source == source else msgspec.structs.replace(c, source=source) for c in candidates)
        _refuse_duplicates(source, (), offered)
        by_slot = dict(self.by_slot)
        for slot in {candidate.slot for candidate in self.sources.get(source, ())}:
            remaining = tuple(c for c in by_slot[slot] if c.source != source)
            if remaining:
                by_slot[slot] = remaining
            else:
                del by_slot[slot]
        return self._with(source, offered, _index(by_slot, offered))

    def with_sources(self, prefix: str, candidates: Iterable[Candidate[Any]]) -> Registry:
        """Return a registry in which the sources under *prefix* offer exactly *candidates*, each its own.

        Raises ConfigError, and so changes nothing, when one of them offers a provider for a slot twice.
        """
        by_source: dict[str, list[Candidate[Any]]] = {name: [] for name in self.sources if name.startswith(prefix)}
        for candidate in candidates:
            by_source.setdefault(candidate.source, []).append(candidate)
        registry = self
        for source, offered in by_source.items():
            registry = registry.with_source(source, offered)
        return registry

    def with_added(self, source: str, candidates: Iterable[Candidate[Any]]) -> Registry:
        """Return a registry in which *source* offers *candidates* beside what it offered before."""
        offered = tuple(c if c.source == source else msgspec.structs.replace(c, source=source) for c in candidates)
        known = self.sources.get(source, ())
        clashing = {c.slot for c in offered} & self.by_slot.keys()
        _refuse_duplicates(source, (c for slot in clashing for c in self.by_slot[slot] if c.source == source), offered)
        return self._with(source, known + offered, _index(dict(self.by_slot), offered))

    def without_source(self, source: str) -> Registry:
        """Return a registry in which *source* offers nothing."""
        return self.with_source(source, ())

    def _with(self, source: str, offered: Candidates, by_slot: dict[Slot[Any], Candidates]) -> Registry:
        sources = {**self.sources, source: offered}
        if not offered:
            del sources[source]
        return Registry(MappingProxyType(sources), MappingProxyType(by_slot))


def _index(by_slot: dict[Slot[Any], Candidates], offered: Candidates) -> dict[Slot[Any], Candidates]:
    others: dict[Slot[Any], list[Candidate[Any]]] = {}
    for candidate in offered:
        alone = (candidate,)  # as most are
        if by_slot.setdefault(candidate.slot, alone) is not alone:
            others.setdefault(candidate.slot, []).append(candidate)
    for slot, added in others.items():
        by_slot[slot] = (*by_slot[slot], *added)
    return by_slot


def _refuse_duplicates(source: str, known: Iterable[Candidate[Any]], offered: Candidates) -> None:
    seen = {(candidate.slot, candidate.provider) for candidate in known}
    problems: list[Problem] = []
    for candidate in offered:
        place = (candidate.slot, candidate.provider)
        if place in seen:
            problems.append(Problem(source, f"offers provider {candidate.provider!r} for {candidate.slot} twice"))
        seen.add(place)
    if problems:
        raise ConfigError(*problems, hint="keep one of them, or give the other a provider name of its own")
