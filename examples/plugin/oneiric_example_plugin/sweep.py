"""A task that makes room."""

from __future__ import annotations

import time
from pathlib import Path

from anyio import to_thread

from oneiric_example_plugin.cache import read

LONGEST_WRITE = 3_600.0
"""Seconds after which an unfinished file belongs to nobody: whoever wrote it was killed."""


class Sweep:
    """Removes from *directory* what a FileCache left there and nobody can read any more.

    A cache may write an entry anew just while the old one is removed. Then it forgets that entry, as caches may.
    """

    def __init__(self, directory: str = ".cache") -> None:
        self._directory = Path(directory)

    async def run(self) -> int:
        """Remove every expired, damaged or unfinished entry; return how many."""
        return await to_thread.run_sync(self._sweep)

    def _sweep(self) -> int:
        now = time.time()
        over = [path for path in self._directory.glob("*") if _is_over(path, now)]
        for path in over:
            path.unlink(missing_ok=True)
        return len(over)


def _is_over(path: Path, now: float) -> bool:
    if path.suffix == ".json":
        entry = read(path)
        return entry is None or (entry[1] is not None and entry[1] <= now)
    try:
        return path.suffix == ".part" and path.stat().st_mtime < now - LONGEST_WRITE
    except FileNotFoundError:  # it is finished
        return False
