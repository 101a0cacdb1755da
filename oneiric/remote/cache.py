"""The cache directory: the last accepted manifest as it was fetched, the artifacts it names, and evidence.

Everything in it may be deleted at any time. Every function here blocks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from oneiric.remote import files

MANIFEST: Final = "manifest.yaml"
ARTIFACTS: Final = "artifacts"
QUARANTINE: Final = "quarantine"
EVIDENCE: Final = 16
"""How many quarantined files are kept."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_WHOLE: Final = 1 << 40
_FETCHED: Final = "fetched-"


class Kept(NamedTuple):
    """Evidence: the artifact that was wrong, where (``cache``, or as it was ``fetched``), and when that was noticed."""

    artifact: str
    origin: str
    at: datetime


class Stored(NamedTuple):
    """A cached artifact: its name, size and digest; ``sha256`` is empty for what cannot be read as a file."""

    name: str
    size_bytes: int
    sha256: str


def artifact_name(sha256: str, uri: str) -> str:
    """Return the name under which an artifact is cached and logged: ``<first 12 of sha256>-<safe basename>``."""
    basename = unquote(urlsplit(uri).path).rpartition("/")[2]
    return f"{sha256[:12]}-{_UNSAFE.sub('_', basename).lstrip('.')[-80:] or 'artifact'}"


class Cache:
    """The cache in *directory*, made when something is to be kept.

    Its functions raise OneiricError when the directory is not ours to use, and OSError when the disk fails.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def lock(self, *, timeout: float | None = None) -> AbstractContextManager[None]:
        """Keep every other process from writing; waits for one that does, and raises OneiricError if it does not end.

        What takes it itself says so: it cannot be taken twice.
        """
        return files.locked(self.directory, "lock", timeout=timeout)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep every other process from ``forget``: artifacts are here that the cached manifest does not name yet.

        Any number may collect at a time. A disk that cannot be written to is no reason not to begin.
        """
        with ExitStack() as stack:
            with suppress(OSError):
                here = stack.enter_context(files.opened(self.directory, ARTIFACTS, make=True))
                fcntl.flock(here, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield

    def read_manifest(self, limit_bytes: int) -> bytes | None:
        """Return the last accepted manifest's bytes, None when there is none; whoever uses them verifies them again."""
        with suppress(FileNotFoundError), files.opened(self.directory) as here:
            return files.read(here, MANIFEST, limit_bytes)
        return None

    def write_manifest(self, content: bytes) -> None:
        """Keep an accepted manifest's bytes, and remove what a crash left behind; hold the lock."""
        self._sweep()
        with files.opened(self.directory, make=True) as here:
            files.write(here, MANIFEST, content)

    def fingerprint(self) -> Mapping[str, object]:
        """Return, by path, what tells whether a file was changed, added or removed since; costs a look at each."""
        return {name: (found.st_mtime_ns, found.st_ino, found.st_size) for name, found in self._files()}

    def read_artifact(self, name: str, limit_bytes: int) -> bytes | None:
        """Return a cached artifact's bytes, None when there is none; b"" for what is no regular file or too large."""
        with suppress(FileNotFoundError), files.opened(self.directory, ARTIFACTS) as here:
            return files.read(here, name, limit_bytes)
        return None

    def write_artifact(self, name: str, content: bytes) -> None:
        """Keep a verified artifact's bytes; takes the lock."""
        with self.lock(), files.opened(self.directory, ARTIFACTS, make=True) as here:
            files.write(here, name, content)

    def quarantine(self, name: str, *, at: str) -> None:
        """Take a cached artifact out of use and keep it as evidence; takes the lock.

        Args:
            at: the instant, with which its name there begins.
        """
        with (
            self.lock(),
            files.opened(self.directory, ARTIFACTS) as artifacts,
            files.opened(self.directory, QUARANTINE, make=True) as evidence,
        ):
            with suppress(FileNotFoundError):
                os.rename(name, _evidence_name(name, at), src_dir_fd=artifacts, dst_dir_fd=evidence)
            _thin_out(evidence)

    def keep_evidence(self, name: str, content: bytes, *, at: str) -> None:
        """Keep what was fetched at the instant *at* and is not what it should be; takes the lock."""
        with self.lock(), files.opened(self.directory, QUARANTINE, make=True) as evidence:
            files.write(evidence, _evidence_name(f"{_FETCHED}{name}", at), content)
            _thin_out(evidence)

    def evidence(self, *, since: datetime | None = None) -> tuple[Kept, ...]:
        """Return what is kept as evidence, oldest first; with *since*, what was put there later."""
        return tuple(kept for name in self.quarantined(since=since) if (kept := _kept(name)) is not None)

    def quarantined(self, *, since: datetime | None = None) -> tuple[str, ...]:
        """Return the names of what is kept as evidence, oldest first; with *since*, of what was put there later."""
        earliest = "" if since is None else _evidence_name("", since.isoformat())
        return tuple(name for name in self._names(QUARANTINE) if name >= earliest)

    def names(self) -> tuple[str, ...]:
        """Return the names of the cached artifacts."""
        return self._names(ARTIFACTS)

    def stored(self) -> tuple[Stored, ...]:
        """Return every cached artifact with its digest."""
        return tuple(self._stored(self.names()))

    def prune(self, keep: Iterable[str]) -> tuple[Stored, ...]:
        """Remove the artifacts that are not in *keep* and what a crash left behind; return them. Hold the lock."""
        kept = set(keep)
        gone = tuple(self._stored(name for name in self.names() if name not in kept))
        self._sweep()
        with suppress(FileNotFoundError), files.opened(self.directory, ARTIFACTS) as here:
            for one in gone:
                files.remove(here, one.name)
        return gone

    def forget(self, keep: Container[str], *, most: int) -> tuple[str, ...]:
        """Remove at most *most* artifacts that are not in *keep*; return their names. Hold the lock.

        None while somebody collects: what is collected is named by no manifest yet.
        """
        with suppress(FileNotFoundError, BlockingIOError), files.opened(self.directory, ARTIFACTS) as here:
            fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = tuple(islice((name for name in self.names() if name not in keep), most))
            for name in gone:
                files.remove(here, name)
            return gone
        return ()

    def size_bytes(self) -> int:
        """Return how much the artifacts and the manifest take."""
        return sum(status.st_size for _, status in self._files())

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for name in (MANIFEST, *(f"{ARTIFACTS}/{name}" for name in self.names())):
            with suppress(OSError):
                yield name, (self.directory / name).lstat()

    def _names(self, part: str) -> tuple[str, ...]:
        with suppress(FileNotFoundError), files.opened(self.directory, part) as here:
            names = os.listdir(here)  # noqa: PTH208 - of a descriptor
            return tuple(sorted(name for name in names if not name.startswith(files.TEMPORARY)))
        return ()

    def _stored(self, names: Iterable[str]) -> Iterator[Stored]:
        """Yield the artifacts of *names* that are still there."""
        for name in names:
            with suppress(FileNotFoundError), files.opened(self.directory, ARTIFACTS) as here:
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                content = files.read(here, name, _WHOLE)
                if content is not None:
                    is_readable = stat.S_ISREG(found.st_mode) and (content or not found.st_size)
                    yield Stored(name, found.st_size, hashlib.sha256(content).hexdigest() if is_readable else "")

    def _sweep(self) -> None:
        for part in ("", ARTIFACTS, QUARANTINE):
            with suppress(FileNotFoundError), files.opened(self.directory, part) as here:
                files.sweep(here)


def _evidence_name(name: str, at: str) -> str:
    return f"{_UNSAFE.sub('', at)}-{name}"


def _kept(name: str) -> Kept | None:
    found = re.fullmatch(rf"(\d{{4}}-\d\d-\d\dT\d{{6}})[\d.]*-({_FETCHED})?([0-9a-f]{{12}}-.+)", name, re.ASCII)
    if found is None:
        return None
    at = datetime.strptime(found[1], "%Y-%m-%dT%H%M%S").replace(tzinfo=UTC)
    return Kept(found[3], "fetched" if found[2] else "cache", at)


def _thin_out(evidence: int) -> None:
    for old in sorted(os.listdir(evidence))[:-EVIDENCE]:
        files.remove(evidence, old)
