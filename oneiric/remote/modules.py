"""Where the modules of artifacts live: a private space for each, so that two versions of one module serve side by side.

The module ``shop.cache`` of an artifact is ``_oneiric_artifacts.sha256_<first 16 digits>.shop.cache`` to the host. Its
code need not know: its builtins hold an ``__import__`` that looks in its own space first, then in the host, wherever
and whenever an import statement runs. So do, inside the artifact, the functions of ``importlib``,
``importlib.resources`` and ``pkgutil`` that take a module by name.

What does not work, because the host does it and cannot know who asked: the artifact's own names in ``logging.config``,
``sys.modules["shop"]``, processes started by spawn, ``importlib.metadata`` and ``pkgutil.iter_modules`` of its own
packages, and a namespace package half here and half in the host under ``import a.b`` (``from a.b import c`` works).
What is put into the host's ``builtins`` after the artifact was opened is not seen inside it. ``__file__`` looks like a
path, as in a zip import, and there is no such file.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from types import CodeType, ModuleType, TracebackType
from typing import Any, Final

from oneiric.remote.resources import Resources

ROOT: Final = "_oneiric_artifacts"

# The functions an artifact may hand its own module names to, and how many of their first arguments are such names.
_TAKE_NAMES: Final = {
    "importlib.import_module": 2,
    "importlib.resources.contents": 1,
    "importlib.resources.files": 1,
    "importlib.resources.is_resource": 1,
    "importlib.resources.open_binary": 1,
    "importlib.resources.open_text": 1,
    "importlib.resources.path": 1,
    "importlib.resources.read_binary": 1,
    "importlib.resources.read_text": 1,
    "importlib.util.find_spec": 2,
    "pkgutil.get_data": 1,
    "pkgutil.resolve_name": 1,
}
_NAME_KEYWORDS: Final = frozenset({"anchor", "name", "package"})
_STOOD_IN_FOR: Final = frozenset(function.rpartition(".")[0] for function in _TAKE_NAMES)


def sources_in(paths: Iterable[str]) -> dict[str, str]:
    """Return where each module among *paths* has its source; a package without one (a namespace) ends in ``/``."""
    paths = list(paths)
    sources = [path for path in paths if path.endswith(".py") and "." not in path[:-3] and path != "__init__.py"]
    tops = {path.partition("/")[0] for path in sources if "/" in path}
    found = {"": "/"}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and "." not in folder and folder.partition("/")[0] in tops:
            found.setdefault(folder.replace("/", "."), f"{folder}/")
            folder = folder.rpartition("/")[0]
    # The last wins: a package over a module of its name, which sorts before it, and both over a namespace.
    for path in sorted(sources):
        found[path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = path
    return found


class Space(InspectLoader):
    """The modules of one artifact: their sources, their loader, and the ``__import__`` they see.

    Entering it keeps it from being unloaded; raises ImportError when it already was.
    """

    def __init__(
        self,
        name: str,
        key: str,
        digest: str,
        files: Mapping[str, bytes],
        *,
        hold: Callable[[Space], None],
        leave: Callable[[Space], None],
    ) -> None:
        self.name = name
        self.key = key
        self.digest = digest
        self.prefix = f"{ROOT}.{key}"
        self.folder = f"<{name} {digest[:16]}>/"  # what stands before a path in tracebacks
        self.users = 0
        self._files = files
        self._sources = sources_in(files)
        self._hold = hold
        self._leave = leave
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._stand_ins: dict[str, ModuleType] = {}

    def __enter__(self) -> None:
        self._hold(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave(self)

    def close(self) -> None:
        """Let go of the files: nothing more can be imported."""
        self._files = {}
        vars(self)["get_source"] = None  # or linecache would keep this method, and us, for each traceback still to come

    # Names

    @property
    def modules(self) -> list[str]:
        """The artifact's modules, by the names its publisher gave them."""
        return sorted(name for name, source in self._sources.items() if not source.endswith("/"))

    def owns(self, name: str) -> bool:
        """Say whether ``import name`` inside the artifact means its own: it has it, or a regular package around it."""
        known = name
        while known and known not in self._sources:
            known = known.rpartition(".")[0]
        return bool(known) and (known == name or not self._sources[known].endswith("/"))

    def private(self, name: str) -> str:
        """Return the name in ``sys.modules`` of what the artifact calls *name*."""
        return f"{self.prefix}.{name}"

    def _qualified(self, name: Any) -> Any:
        return self.private(name) if isinstance(name, str) and self.owns(name) else name

    # What the artifact's code sees

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of the builtin
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        found: ModuleType
        if level == 0 and not self.owns(name):
            found = builtins.__import__(name, globals, locals, fromlist or (), 0)
            stand_in: ModuleType = self.stand_in(name if fromlist else top, found)
            return stand_in
        package = str((globals or {}).get("__package__"))
        if level and package.startswith(self.prefix) and level >= package.count("."):
            raise ImportError("attempted relative import beyond top-level package")
        with self:
            absolute = name if level else self.private(name)
            found = builtins.__import__(absolute, globals, locals, fromlist or (), level)
            return found if level or fromlist else sys.modules[self.private(top)]

    def stand_in(self, name: str, found: Any) -> Any:
        """Return what the artifact sees instead of *found*, which the host calls *name*."""
        if name in _TAKE_NAMES:
            return self._taking_names(found, _TAKE_NAMES[name])
        if name in _STOOD_IN_FOR:
            return self._stand_ins.setdefault(name, _StandIn(name, found, self))
        return found

    def _taking_names(self, function: Callable[..., Any], count: int) -> Callable[..., Any]:
        # importlib.resources.files() without arguments looks for its caller beyond functions named "wrapper".
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            names = [self._qualified(name) for name in args[:count]]
            named = {key: self._qualified(name) for key, name in kwargs.items() if key in _NAME_KEYWORDS}
            with self:
                return function(*names, *args[count:], **{**kwargs, **named})

        return wrapper

    # What the import system asks a loader

    def spec(self, name: str) -> ModuleSpec | None:
        """Return how to import what the artifact calls *name*, ``""`` being the space itself; None: it has no such."""
        path = self._sources.get(name)
        if path is None:
            return None
        fullname = self.private(name) if name else self.prefix
        return ModuleSpec(fullname, self, origin=self.folder + path, is_package=self.is_package(fullname))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module whose code imports through this space."""
        module = ModuleType(spec.name)
        vars(module)["__builtins__"] = self._builtins
        if not self._path(spec.name).endswith("/"):
            module.__file__ = (
                spec.origin
            )  # names no file, as for zip imports; tracebacks and inspect get the source by it
        return module

    def is_package(self, fullname: str) -> bool:
        """Say whether *fullname* is a package."""
        return self._path(fullname).endswith(("/", "/__init__.py"))

    def get_code(self, fullname: str) -> CodeType:
        """Compile *fullname* from the verified bytes."""
        code: CodeType = compile(self._content(fullname), self.folder + self._path(fullname), "exec", dont_inherit=True)
        return code

    def get_source(self, fullname: str) -> str:
        """Return the text of *fullname*, for tracebacks and ``inspect``."""
        return decode_source(self._content(fullname))

    def get_data(self, path: str) -> bytes:
        """Return the file at *path*, which begins like the ``__file__`` of a module; for ``pkgutil.get_data``."""
        try:
            return self._files[path.removeprefix(self.folder)]
        except KeyError:
            raise FileNotFoundError(f"artifact {self.name} has no file {path!r}") from None

    def get_resource_reader(self, fullname: str) -> Resources:
        """Return the data files beside *fullname*."""
        return Resources(self._files, self._path(fullname).rpartition("/")[0])

    def _path(self, fullname: str) -> str:
        path = self._sources.get(fullname.removeprefix(self.prefix).removeprefix("."))
        if path is None:
            raise ImportError(f"artifact {self.name} has no module {fullname}", name=fullname)
        return path

    def _content(self, fullname: str) -> bytes:
        path = self._path(fullname)
        content = b"" if path.endswith("/") else self._files.get(path)
        if content is None:
            raise ImportError(f"artifact {self.name} was released", name=fullname)
        return content


class _StandIn(ModuleType):
    """A module of the host as an artifact sees it: functions that take a module by name take the artifact's own too."""

    def __init__(self, name: str, module: ModuleType, space: Space) -> None:
        super().__init__(name, module.__doc__)
        self.__spec__ = module.__spec__
        self.__loader__ = module.__loader__
        self.__package__ = module.__package__
        self._module = module
        self._space = space

    def __getattr__(self, name: str) -> Any:
        return self._space.stand_in(f"{self.__name__}.{name}", getattr(self._module, name))
