"""The spaces of all artifacts in this process: shared by digest, counted, and unloaded without a trace."""

from __future__ import annotations

import linecache
import logging
import sys
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from oneiric.errors import TrustError
from oneiric.remote.modules import ROOT, Space


class Spaces(MetaPathFinder):
    """Finds the modules of every artifact that is open, and knows how many hold each.

    An import in progress counts as a holder, and whoever lets go last unloads: a release never pulls the modules from
    under an import, and never waits for one.
    """

    def __init__(self) -> None:
        # Re-entrant because a finalizer may run at any moment, also under this lock, and may import or release.
        # Nothing is imported or unpacked under it: it could deadlock with the locks of the import system.
        self._lock = threading.RLock()
        self._spaces: dict[str, Space] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return how to import *fullname* when it lies in a space."""
        del path, target
        root, _, rest = fullname.partition(".")
        if root != ROOT:
            return None
        if not rest:
            return ModuleSpec(ROOT, None, is_package=True)
        key, _, name = rest.partition(".")
        space = self._spaces.get(key)
        return None if space is None else space.spec(name)

    def open(self, name: str, key: str, digest: str, read: Callable[[], Mapping[str, bytes]]) -> Space:
        """Return the space of *key*, held once more; *read* returns the files of the artifact, when it is new.

        Raises TrustError when *key* is that of another digest.
        """
        space = self._shared(key, digest)
        if space is None:
            fresh = Space(name, key, digest, read(), hold=self.hold, leave=self.leave)
            with self._lock:
                self._spaces.setdefault(key, fresh)
                if self not in sys.meta_path:
                    sys.meta_path.insert(0, self)  # first: nobody else may answer for these names
                space = self._shared(key, digest)
        return typing.cast(Space, space)

    def _shared(self, key: str, digest: str) -> Space | None:
        with self._lock:
            space = self._spaces.get(key)
            if space is None:
                return None
            if space.digest != digest:
                raise TrustError(
                    f"the digests of artifact {space.name}, which is open, and of another one begin alike",
                    reason="digest",
                    hint=f"compare them: {space.digest} {digest}",
                )
            space.users += 1
            return space

    def hold(self, space: Space) -> None:
        """Keep *space* from being unloaded; raises ImportError when it already was."""
        with self._lock:
            if not space.users:
                raise ImportError(f"artifact {space.name} was released: it can import nothing more")
            space.users += 1

    def leave(self, space: Space) -> None:
        """Let go of *space*, and unload it when nobody else holds it."""
        with self._lock:
            space.users -= 1
            if space.users:
                return
            del self._spaces[space.key]
            space.close()
            unloaded = {name: sys.modules.pop(name) for name in list(sys.modules) if _within(name, space.prefix)}
            root = sys.modules.get(ROOT)  # there is none before the first import
            if root is not None:
                vars(root).pop(space.key, None)
            if not self._spaces:
                sys.modules.pop(ROOT, None)
                sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        # The modules themselves go here, outside the lock: their finalizers may do anything.
        _forget(space, unloaded)


# sys.modules and sys.meta_path are one per process, and so is who keeps our part of them.
SPACES: Final = Spaces()


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _forget(space: Space, unloaded: Mapping[str, ModuleType]) -> None:
    """Empty the standard library's caches of what would keep *unloaded* alive, or grow with every version."""
    for file in [file for file in list(linecache.cache) if file.startswith(space.folder)]:
        linecache.cache.pop(file, None)
    for clear in getattr(typing, "_cleanups", ()):  # Optional[X] is remembered with X
        clear()
    inspect = sys.modules.get("inspect")
    for table in (getattr(inspect, "modulesbyfile", {}), getattr(inspect, "_filesbymodname", {})):
        for key in [key for key, value in list(table.items()) if key in unloaded or value in unloaded]:
            table.pop(key, None)
    loggers = logging.root.manager.loggerDict
    for name in [name for name in list(loggers) if _within(name, space.prefix)]:
        loggers.pop(name, None)
    above = getattr(loggers.get(ROOT), "loggerMap", {})
    for logger in [logger for logger in list(above) if _within(logger.name, space.prefix)]:
        above.pop(logger, None)
