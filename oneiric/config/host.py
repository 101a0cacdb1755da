"""The machine we run on, as eligibility sees it."""

from __future__ import annotations

import os
import re
import sys
from functools import cache

from oneiric.core.resolution import Host


def this_host() -> Host:
    """Return this machine. Versions of installed distributions are looked up when asked for, and remembered."""
    platform = {"win32": "windows"}.get(sys.platform, sys.platform)
    return Host(".".join(map(str, sys.version_info[:3])), platform, cache(_installed))


def _installed(name: str) -> str | None:
    """Return a distribution's version, as the name of its ``*.dist-info`` tells it.

    ``importlib.metadata``, whose import costs the command line more than this takes, is asked where that cannot tell.
    """
    wanted = _canonical(name)
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208 - names are all it takes
        except FileNotFoundError:
            continue
        except OSError:  # a zip file, most likely
            return _from_metadata(name)
        for found in names:
            stem, kind = os.path.splitext(found)  # noqa: PTH122
            distribution, _, version = stem.partition("-")
            if kind in (".dist-info", ".egg-info", ".egg-link") and _canonical(distribution) == wanted:
                return version if kind == ".dist-info" and version else _from_metadata(name)
    return None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _from_metadata(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
