"""Read the settings directory, the environment and flags into the settings tree, and make a policy of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from oneiric.config.environment import Layer, from_environment, from_flags, from_platform
from oneiric.config.files import read_bounded, remedy
from oneiric.config.reader import LIMIT_BYTES, decode, parse
from oneiric.config.secrets import resolve_references
from oneiric.config.source import Source
from oneiric.config.tree import Tree
from oneiric.core.candidate import Candidate, Slot
from oneiric.core.config import FILES, CandidateSettings, Settings
from oneiric.core.domain import DOMAINS
from oneiric.core.resolution import STACK_ORDER, Bar, Host, Policy, Selection, StackOrder
from oneiric.errors import ConfigError, Problem

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


def load(directory: Path, *, environ: Mapping[str, str], flags: Mapping[str, Any] = _NONE) -> Settings:
    """Return the settings: a flag beats the environment, that beats a file in *directory*, that beats the default.

    Mappings are merged key by key, all else is replaced. ``PORT``, which is not ours, beats only the default of
    ``api.http``. Raises ConfigError listing every mistake in all of them.

    Args:
        flags: values by dotted path, such as ``api.socket``; None means not given.
    """
    tree = Tree()
    for layer in from_platform(environ):
        tree.add(layer)
    for layer in _from_files(directory, tree.problems):
        tree.add(layer)
    for layer in from_environment(environ):
        tree.add(layer, may_weaken=False)
    for layer in from_flags(flags):
        tree.add(layer)
    stack_order = environ.get(STACK_ORDER, "")
    try:
        StackOrder.parse(stack_order)
    except ConfigError as error:
        tree.problems += error.problems
    return tree.settings(stack_order)


def local_candidates(settings: Settings) -> tuple[Candidate[Any], ...]:
    """Return the candidates that the settings files themselves offer."""
    return tuple(
        _candidate(Slot(domain.name, offer.key), offer, f"settings/{domain.settings_file}")
        for domain in DOMAINS.values()
        for offer in settings.domains[domain.name].candidates
    )


def policy(
    settings: Settings,
    *,
    host: Host,
    pins: Mapping[Slot[Any], Selection],
    environ: Mapping[str, str],
    barred: Mapping[tuple[Slot[Any], str], Bar] = MappingProxyType({}),
) -> Policy:
    """Return what decides between candidates. A pin beats a selection in the settings.

    Args:
        barred: providers that the caller bars. The result also bars whose settings refer to a secret that is not there.
    """
    selections: dict[Slot[Any], Selection] = {}
    capabilities: dict[Slot[Any], frozenset[str]] = {}
    for domain in DOMAINS.values():
        chosen = settings.domains[domain.name]
        for key, provider in chosen.selections.items():
            origin = settings.origins.get(f"{domain.plural}.selections.{key}", "")
            selections[Slot(domain.name, key)] = Selection(provider, "settings", origin)
        capabilities |= {Slot(domain.name, key): frozenset(names) for key, names in chosen.capabilities.items()}
    return Policy(
        selections=MappingProxyType({**selections, **pins}),
        stack_order=StackOrder.parse(settings.stack_order),
        capabilities=MappingProxyType(capabilities),
        barred=Bars(settings, _broken(settings, environ), barred),
        host=host,
    )


class Bars(Mapping[tuple[Slot[Any], str], Bar]):
    """Who is barred, by slot and provider.

    Settings of a provider hold for every slot it may fill, and those cannot be listed: look up, do not iterate.
    """

    def __init__(
        self,
        settings: Settings,
        broken: Mapping[tuple[str, str], Bar],
        others: Mapping[tuple[Slot[Any], str], Bar],
    ) -> None:
        self._others = others
        self._settings = settings
        self._broken = broken

    def also(self, others: Mapping[tuple[Slot[Any], str], Bar]) -> Bars:
        """Return these bars with *others* in place of the others so far."""
        return Bars(self._settings, self._broken, others)

    def __getitem__(self, place: tuple[Slot[Any], str]) -> Bar:
        if place in self._others:
            return self._others[place]
        slot, provider = place
        specific = f"{slot.key}/{provider}"
        in_force = specific if specific in self._settings.domains[slot.domain].provider_settings else provider
        return self._broken[slot.domain, in_force]

    def __iter__(self) -> Iterator[tuple[Slot[Any], str]]:
        raise TypeError("bars cannot be listed; give your own to policy(barred=...)")

    def __len__(self) -> int:
        raise TypeError("bars cannot be counted; give your own to policy(barred=...)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bars) and (self._others, self._broken) == (other._others, other._broken)

    __hash__ = None  # type: ignore[assignment]


def _broken(settings: Settings, environ: Mapping[str, str]) -> Mapping[tuple[str, str], Bar]:
    """Return which provider settings, by domain and name, refer to a secret that is not there."""
    return {
        (domain, name): Bar(reason)
        for domain, chosen in settings.domains.items()
        for name, values in chosen.provider_settings.items()
        if (reason := _missing_secrets(name, values, environ))
    }


def _missing_secrets(name: str, values: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    try:
        resolve_references(values, environ=environ, base=Path())
    except ConfigError as error:
        return "; ".join(f"provider_settings.{name}.{problem}" for problem in error.problems)
    return ""


def _candidate(slot: Slot[Any], offer: CandidateSettings, source: str) -> Candidate[Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(offer)
    fields["capabilities"] = frozenset(offer.capabilities)
    del fields["key"]
    return Candidate(slot=slot, source=source, **fields)


def _from_files(directory: Path, problems: list[Problem]) -> Iterator[Layer]:
    problem = _directory_problem(directory)
    if problem is not None:
        problems.append(problem)
        return
    for name in FILES:
        source = Source(str(directory / name))
        yield Layer(name, _read(directory / name, source), source)


def _directory_problem(directory: Path) -> Problem | None:
    """Return what keeps us from looking into *directory*; that it is not there is no problem."""
    accepted = "a directory that holds app.yml, adapters.yml ..."
    try:
        os.stat(os.path.join(directory, "."))  # noqa: PTH116, PTH118 - a Path would lose the dot
    except NotADirectoryError:
        return Problem(str(directory), "is not a directory", accepted)
    except OSError as error:
        if os.path.lexists(directory) or not isinstance(error, FileNotFoundError):
            return Problem(str(directory), f"cannot be read: {error.strerror}", remedy(error))
    return None


def _read(path: Path, source: Source) -> Any:
    try:
        content = read_bounded(path, LIMIT_BYTES)
    except FileNotFoundError as error:
        if os.path.lexists(path):
            source.refuse((), "is a symbolic link that leads nowhere", remedy(error))
        for similar in (path.with_suffix(".yaml"), path.with_name(f"{path.stem.removesuffix('s')}.yml")):
            if similar != path and os.path.lexists(similar):
                source.refuse((), f"does not exist, and {similar.name} is not read", f"rename it to {path.name}")
        return None
    except OSError as error:
        source.refuse((), f"cannot be read: {error.strerror}", remedy(error))
        return None
    text = decode(content, source)
    return parse(text, source) if text and not text.isspace() else None
