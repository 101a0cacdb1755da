"""From ``module:attribute`` to the object it names. Light: the command line imports it without the engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def import_object(path: str) -> Any:
    """Return the object that ``module:attribute`` names; raises ImportError, or whatever the module raises."""
    module_name, _, attributes = path.partition(":")
    found: Any = importlib.import_module(module_name)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ImportError(f"module {module_name!r} has no {attributes!r}") from None
    return found


def import_factory(path: str) -> Callable[..., Any]:
    """Return the factory that *path* names; raises TypeError when it cannot be called."""
    found = import_object(path)
    if not callable(found):
        raise TypeError(f"{path} is of type {type(found).__name__}, not something to call")
    factory: Callable[..., Any] = found
    return factory
