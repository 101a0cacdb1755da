"""A cache that keeps each entry in a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp

from anyio import to_thread


class FileCache:
    """Keeps text in *directory*, which processes may share and which outlives them. It needs no closing.

    A file is replaced whole, so a reader never sees half an entry. What has expired stays on disk, unread, until
    :class:`~oneiric_example_plugin.sweep.Sweep` removes it.

    Args:
        clock: seconds since 1970, for deadlines that another process understands.
    """

    provider = "file"

    def __init__(self, directory: str = ".cache", *, clock: Callable[[], float] = time.time) -> None:
        self._directory = Path(directory)
        self._clock = clock
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def get(self, key: str) -> str | None:
        """Return what is kept under *key*, or None."""
        entry = await to_thread.run_sync(read, self._path(key))
        if entry is None:
            return None
        value, deadline = entry
        return value if deadline is None or deadline > self._clock() else None

    async def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Keep *value* under *key*, for *ttl* seconds if given; raises ValueError unless *ttl* is more than 0."""
        if ttl is not None and not ttl > 0:
            raise ValueError(f"a ttl must be more than 0 seconds, not {ttl}")
        deadline = None if ttl is None else self._clock() + ttl
        await to_thread.run_sync(_write, self._path(key), json.dumps([value, deadline]))

    async def delete(self, key: str) -> None:
        """Keep nothing under *key*."""
        await to_thread.run_sync(lambda: self._path(key).unlink(missing_ok=True))

    async def clear(self) -> None:
        """Forget everything."""
        await to_thread.run_sync(self._remove_all)

    async def health(self) -> bool:
        """Say whether the directory is there and can be written to."""
        return await to_thread.run_sync(os.access, self._directory, os.W_OK | os.X_OK)

    async def aclose(self) -> None:
        """Keep everything for the next one."""

    def _path(self, key: str) -> Path:
        # Any text may be a key, not any text a file name.
        return self._directory / f"{sha256(key.encode()).hexdigest()}.json"

    def _remove_all(self) -> None:
        for path in list(self._directory.glob("*.json")):
            path.unlink(missing_ok=True)


def read(path: Path) -> tuple[str, float | None] | None:
    """Return the value and the deadline kept in *path*, or None when it holds no entry."""
    try:
        value, deadline = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return value, deadline


def _write(path: Path, text: str) -> None:
    descriptor, name = mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
