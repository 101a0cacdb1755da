"""Resolve, explain, lease and hot-swap the replaceable parts of a Python program."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneiric.core.candidate import Candidate, Slot
    from oneiric.core.config import Settings
    from oneiric.core.resolution import Rank, Resolution
    from oneiric.errors import NoCandidateError, OneiricError, SwapFailedError
    from oneiric.lifecycle.reports import SwapReport
    from oneiric.runtime.runtime import Runtime

__version__ = "0.1.0"
__all__ = [
    "Candidate",
    "NoCandidateError",
    "OneiricError",
    "Rank",
    "Resolution",
    "Runtime",
    "Settings",
    "Slot",
    "SwapFailedError",
    "SwapReport",
]


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that the command line starts without the engine (PEP 562)."""
    from importlib import import_module

    modules = {
        "core.candidate": ("Candidate", "Slot"),
        "core.config": ("Settings",),
        "core.resolution": ("Rank", "Resolution"),
        "errors": ("NoCandidateError", "OneiricError", "SwapFailedError"),
        "lifecycle.reports": ("SwapReport",),
        "runtime.runtime": ("Runtime",),
    }
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(f"oneiric.{module}"), name)
    raise AttributeError(f"module 'oneiric' has no attribute {name!r}")
