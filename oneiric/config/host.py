"""The machine we run on, as eligibility sees it."""

from __future__ import annotations

import sys
from functools import cache

from oneiric.core.resolution import Host


def this_host() -> Host:
    """Return this machine. Versions of installed distributions are looked up when asked for, and remembered."""
    platform = {"win32": "windows"}.get(sys.platform, sys.platform)
    return Host(".".join(map(str, sys.version_info[:3])), platform, cache(_installed))


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
