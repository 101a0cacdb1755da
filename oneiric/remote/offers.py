"""From a verified manifest's entries to candidates. What an entry names is found only when it is about to be built."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any

from oneiric.core.candidate import Candidate, Deferred, Slot, is_name
from oneiric.core.manifest import Entry, Manifest
from oneiric.errors import TrustError
from oneiric.lifecycle.imports import import_factory
from oneiric.remote.artifact import Artifact
from oneiric.remote.cache import artifact_name

SOURCE = "remote"
"""The registry's source of all that comes from the manifest."""


def offers(manifest: Manifest, artifacts: Mapping[str, Artifact]) -> tuple[Candidate[Any], ...]:
    """Return the candidates that *manifest* offers; an artifact is unloaded when the last thing made of it is gone.

    Args:
        artifacts: the opened ones by the names under which they are cached; the candidates take them over.
    """
    held = {name: _Held(artifact) for name, artifact in artifacts.items()}
    return _candidates(manifest, held)


def listed(manifest: Manifest) -> tuple[Candidate[Any], ...]:
    """Return the candidates that *manifest* offers, to look at and not to build."""
    return _candidates(manifest, {})


class _Held:
    """An open artifact that is released with the last factory that refers to it."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        weakref.finalize(self, artifact.release).atexit = False

    def load(self, path: str) -> Any:
        """Return what *path* names in it."""
        return self.artifact.load(path)


def _candidates(manifest: Manifest, held: Mapping[str, _Held]) -> tuple[Candidate[Any], ...]:
    stack = manifest.source if is_name(manifest.source) else SOURCE
    shared = cache(frozenset[str])  # few sets are different, and each would be one thing more to collect
    return tuple(_candidate(entry, stack, held, shared(entry.capabilities)) for entry in manifest.entries)


def _candidate(entry: Entry, stack: str, held: Mapping[str, _Held], capabilities: frozenset[str]) -> Candidate[Any]:
    return Candidate(
        slot=Slot(entry.domain, entry.key),
        provider=entry.provider,
        factory=_factory(entry, held),
        stack=stack,
        stack_level=entry.stack_level,
        priority=entry.priority,
        version=entry.version,
        capabilities=capabilities,
        requires=entry.requires,
        python_version=entry.python_version,
        os_platform=entry.os_platform,
        metadata=entry.metadata,
        source=SOURCE,
    )


def _factory(entry: Entry, held: Mapping[str, _Held]) -> Deferred:
    path = entry.factory
    if entry.uri is None or entry.sha256 is None:
        return Deferred(path, _installed, (path,))
    cached = artifact_name(entry.sha256, entry.uri)
    artifact = held.get(cached)
    name = f"{cached}/{path}"
    return Deferred(name, _opened, (artifact, path, name))


def _opened(artifact: _Held | None, path: str, name: str) -> Any:
    """Return what *path* names in an artifact; raises TrustError where that was not opened."""
    if artifact is None:
        raise TrustError(f"{name} was not opened", reason="digest", hint="oneiric remote-sync")
    return artifact.load(path)


def _installed(path: str) -> Any:
    """Return what *path* names among what is installed; raises TrustError unless that module itself defines it."""
    found = import_factory(path)
    module = path.partition(":")[0]
    if getattr(found, "__module__", None) != module:
        raise TrustError(
            f"factory {path} is not defined in {module}",
            reason="factory",
            hint="a manifest may name only what its module defines itself, not what it imports",
        )
    return found
