"""Candidates that installed distributions offer through our six entry-point groups.

Distributions are found by reading ``*.dist-info/entry_points.txt`` along ``sys.path``: importing
``importlib.metadata`` and letting it open every distribution costs ten times as much at each start of the command
line. Path entries that are not directories (zip files) go through ``importlib.metadata``. A plugin that cannot be used
is a row of the report.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from oneiric.core.candidate import Candidate
from oneiric.core.config import PluginsSettings
from oneiric.core.domain import DOMAINS
from oneiric.core.registry import Registry
from oneiric.errors import OneiricError
from oneiric.lifecycle.imports import import_object
from oneiric.observability.describe import describe

GROUPS: Final = tuple(domain.group for domain in DOMAINS.values())
_OURS: Final = "oneiric."  # what each of them begins with
MOST_CANDIDATES: Final = 10_000
"""How many one entry point may offer; a generator that never ends would fill the memory."""


class EntryPoint(NamedTuple):
    """One line of a distribution's entry points."""

    group: str
    name: str
    value: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution}:{self.name}"

    @property
    def names(self) -> frozenset[str]:
        """What settings may call it."""
        return frozenset({self.name, self.distribution, str(self)})


class Plugin(msgspec.Struct, frozen=True):
    """One entry point and what became of it: its candidates, or the error that kept it out."""

    entry_point: EntryPoint
    candidates: tuple[Candidate[Any], ...] = ()
    error: str = ""
    disabled: bool = False

    @property
    def source(self) -> str:
        """The registry source that holds its candidates."""
        return f"plugin {self.entry_point.group}:{self.entry_point}"


def selected(settings: PluginsSettings, path: Sequence[str]) -> tuple[Plugin, ...]:
    """Return every entry point of our groups along *path*, sorted, not loaded yet; disabled ones are marked."""
    if not settings.enabled:
        return ()
    disabled = set(settings.disabled)
    return tuple(Plugin(entry, disabled=bool(entry.names & disabled)) for entry in sorted(set(entry_points(path))))


def unmatched(settings: PluginsSettings, plugins: Iterable[Plugin]) -> tuple[str, ...]:
    """Return the names in ``plugins.disabled`` that none of *plugins*, which are all there are, is called by."""
    if not settings.enabled:
        return ()
    known = frozenset[str]().union(*(plugin.entry_point.names for plugin in plugins))
    return tuple(name for name in dict.fromkeys(settings.disabled) if name not in known)


def discover(
    settings: PluginsSettings, *, path: Sequence[str] | None = None, timeout: float = 30.0
) -> tuple[Plugin, ...]:
    """Load every entry point of our groups along *path*, each within *timeout* seconds; broken ones are rows too."""
    found = selected(settings, sys.path if path is None else path)
    return tuple(plugin if plugin.disabled else _load_within(timeout, plugin.entry_point) for plugin in found)


def registered(plugins: Iterable[Plugin]) -> tuple[Registry, tuple[Plugin, ...]]:
    """Return a registry of what *plugins* offer, and the plugins; one whose own candidates clash becomes an error."""
    registry = Registry()
    kept: list[Plugin] = []
    for plugin in plugins:
        try:
            registry = registry.with_source(plugin.source, plugin.candidates)
            kept.append(plugin)
        except OneiricError as error:
            kept.append(msgspec.structs.replace(plugin, candidates=(), error=_in_one_line(error)))
    return registry, tuple(kept)


def _load_within(timeout: float, entry: EntryPoint) -> Plugin:
    """Load *entry* in a thread, which is left behind when its time is up."""
    loaded: list[Plugin] = []
    thread = threading.Thread(target=lambda: loaded.append(load(entry)), daemon=True, name="oneiric-plugin")
    thread.start()
    thread.join(timeout)
    return loaded[0] if loaded else Plugin(entry, error=describe(TimeoutError(f"no answer within {timeout:g} s")))


def load(entry: EntryPoint) -> Plugin:
    """Import what *entry* names and check what it offers; whatever it raises becomes the plugin's error.

    For a thread of its own: there nothing but the plugin's code can raise KeyboardInterrupt, or a cancellation.
    """
    try:
        offered = import_object(entry.value)
        if callable(offered):
            offered = offered()
        return Plugin(entry, _checked(entry, offered))
    except OneiricError as error:
        return Plugin(entry, error=_in_one_line(error))
    except BaseException as error:  # the plugin's code ran: it may raise anything, or try to exit
        return Plugin(entry, error=describe(error))


def _in_one_line(error: OneiricError) -> str:
    return "; ".join(str(error).splitlines())


def _checked(entry: EntryPoint, offered: Any) -> tuple[Candidate[Any], ...]:
    candidates = (offered,) if isinstance(offered, Candidate) else offered
    if not isinstance(candidates, Iterable) or isinstance(candidates, str | bytes):
        raise TypeError(f"{entry.value} is of type {type(offered).__name__}, not a Candidate or an iterable of them")
    checked: list[Candidate[Any]] = []
    for candidate in candidates:
        if not isinstance(candidate, Candidate):
            raise TypeError(f"{entry.value} offers what is of type {type(candidate).__name__}, not a Candidate")
        if DOMAINS[candidate.slot.domain].group != entry.group:
            raise TypeError(f"{entry.value} is in group {entry.group} but offers {candidate.slot}")
        if len(checked) == MOST_CANDIDATES:
            raise TypeError(f"{entry.value} offers more than {MOST_CANDIDATES:,} candidates")
        checked.append(candidate)
    return tuple(checked)


def entry_points(path: Sequence[str]) -> Iterator[EntryPoint]:
    """Iterate over the entry points of our groups; of a distribution found twice the first on *path* counts."""
    seen: set[str] = set()
    for entry in path:
        directory = Path(entry or ".")
        read = _in_directory if directory.is_dir() else _elsewhere
        for name, version, text in read(directory):
            if name not in seen:
                seen.add(name)
                yield from _parse(text, name, version)


def _in_directory(directory: Path) -> Iterator[tuple[str, str, str]]:
    try:
        # Paths for all that lies about in a site directory would take longer than reading what is of use.
        names = sorted(name for name in os.listdir(directory) if os.path.splitext(name)[1] == ".dist-info")  # noqa: PTH122, PTH208
    except OSError:
        return
    for name in names:
        try:
            with open(f"{directory}/{name}/entry_points.txt", encoding="utf-8") as file:  # noqa: PTH123
                text = file.read()
        except (OSError, UnicodeDecodeError):
            continue
        distribution, _, version = name.removesuffix(".dist-info").partition("-")
        yield _canonical(distribution), version, text


def _canonical(distribution: str) -> str:
    """Return the one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _elsewhere(directory: Path) -> Iterator[tuple[str, str, str]]:
    if not directory.exists():
        return
    from importlib.metadata import distributions

    for distribution in distributions(path=[str(directory)]):
        row = None
        with suppress(Exception):  # of a damaged archive nothing can be told: unzipping and decoding raise many kinds
            text = distribution.read_text("entry_points.txt") or ""
            row = _canonical(distribution.name), distribution.version, text
        if row is not None:
            yield row


def _parse(text: str, distribution: str, version: str) -> Iterator[EntryPoint]:
    group = ""
    if _OURS not in text:  # as in nearly all
        return
    for line in (raw.strip() for raw in text.splitlines()):
        if line.startswith("["):
            group = line[1:-1].strip()
        elif group in GROUPS and "=" in line and not line.startswith(("#", ";")):
            name, _, value = (part.strip() for part in line.partition("="))
            yield EntryPoint(group, name, value.partition("[")[0].strip(), distribution, version)
