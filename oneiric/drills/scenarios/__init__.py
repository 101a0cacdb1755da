"""The drills, by runbook. Each module here has ``DRILLS``; another module, or another row in one, is another drill."""

from __future__ import annotations

import importlib
import pkgutil

from oneiric.drills.drill import Drill


def drills() -> tuple[Drill, ...]:
    """Return every drill, by code."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = [drill for name in names for drill in importlib.import_module(f"{__name__}.{name}").DRILLS]
    return tuple(sorted(found, key=lambda drill: drill.code))
