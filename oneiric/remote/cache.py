"""The cache directory: the last accepted manifest as it was fetched, the artifacts it names, and evidence.

Everything in it may be deleted at any time. Files are opened relative to the directory, which must be ours, and no
link is followed. A file is written beside its final name, synced and moved there, so that a crash leaves the old one
or the new one. Every function here blocks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from oneiric.errors import OneiricError

MANIFEST: Final = "manifest.yaml"
ARTIFACTS: Final = "artifacts"
QUARANTINE: Final = "quarantine"
EVIDENCE: Final = 16
"""How many quarantined files are kept."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_TEMPORARY: Final = ".tmp-"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stored(NamedTuple):
    """A cached artifact: its name, size and digest; ``sha256`` is empty for what is no regular file."""

    name: str
    size_bytes: int
    sha256: str


def artifact_name(sha256: str, uri: str) -> str:
    """Return the name under which an artifact is cached and logged: ``<first 12 of sha256>-<safe basename>``."""
    basename = unquote(urlsplit(uri).path).rpartition("/")[2]
    return f"{sha256[:12]}-{_UNSAFE.sub('_', basename).lstrip('.')[-80:] or 'artifact'}"


class Cache:
    """The cache in *directory*, made when it is needed.

    Its functions raise OneiricError when the directory is not ours to use, and OSError when the disk fails.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from writing; waits for one that does."""
        with self._opened() as here:
            descriptor = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=here)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read_manifest(self, limit_bytes: int) -> bytes | None:
        """Return the last accepted manifest's bytes, None when there is none; whoever uses them verifies them again."""
        with self._opened() as here:
            return _read(here, MANIFEST, limit_bytes)

    def write_manifest(self, content: bytes) -> None:
        """Keep an accepted manifest's bytes."""
        with self._opened() as here:
            _write(here, MANIFEST, content)

    def has_manifest(self) -> bool:
        """Say whether a manifest was kept."""
        return (self.directory / MANIFEST).is_file()

    def fingerprint(self) -> object:
        """Return what tells, by equality, whether a file was changed, added or removed since; costs a look at each."""
        found: list[tuple[str, int, int, int]] = []
        for name in (MANIFEST, *(f"{ARTIFACTS}/{name}" for name in self._names(ARTIFACTS))):
            with suppress(OSError):
                status = (self.directory / name).lstat()
                found.append((name, status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(found)

    def read_artifact(self, name: str, limit_bytes: int) -> bytes | None:
        """Return a cached artifact's bytes, None when there is none; b"" for what is no regular file or too large."""
        with self._opened(ARTIFACTS) as here:
            return _read(here, name, limit_bytes)

    def write_artifact(self, name: str, content: bytes) -> None:
        """Keep a verified artifact's bytes."""
        with self._opened(ARTIFACTS) as here:
            _write(here, name, content)

    def quarantine(self, name: str, *, at: str) -> None:
        """Take a cached artifact out of use and keep it as evidence, under a name that begins with the instant *at*."""
        with self._opened(ARTIFACTS) as artifacts, self._opened(QUARANTINE) as evidence:
            with suppress(FileNotFoundError):
                os.rename(name, f"{_UNSAFE.sub('', at)}-{name}", src_dir_fd=artifacts, dst_dir_fd=evidence)
            _thin_out(evidence)

    def keep_evidence(self, name: str, content: bytes, *, at: str) -> None:
        """Keep what was fetched and is not what it should be."""
        with self._opened(QUARANTINE) as evidence:
            _write(evidence, f"{_UNSAFE.sub('', at)}-{name}", content)
            _thin_out(evidence)

    def quarantined(self) -> tuple[str, ...]:
        """Return the names of what is kept as evidence, oldest first."""
        return self._names(QUARANTINE)

    def stored(self) -> tuple[Stored, ...]:
        """Return every cached artifact with its digest."""
        return tuple(self._stored(name) for name in self._names(ARTIFACTS))

    def prune(self, keep: Iterable[str]) -> tuple[Stored, ...]:
        """Remove the artifacts that are not in *keep* and what a crash left behind; return them."""
        kept = set(keep)
        gone = [self._stored(name) for name in self._names(ARTIFACTS) if name not in kept]
        with self._opened(ARTIFACTS) as here:
            for name in (*(one.name for one in gone), *(n for n in os.listdir(here) if n.startswith(_TEMPORARY))):  # noqa: PTH208
                _remove(here, name)
        return tuple(gone)

    def size_bytes(self) -> int:
        """Return how much the artifacts and the manifest take."""
        total = 0
        for name in (MANIFEST, *(f"{ARTIFACTS}/{name}" for name in self._names(ARTIFACTS))):
            with suppress(OSError):
                total += (self.directory / name).lstat().st_size
        return total

    def _names(self, part: str) -> tuple[str, ...]:
        if not (self.directory / part).is_dir():
            return ()
        with self._opened(part) as here:
            names = os.listdir(here)  # noqa: PTH208 - of a descriptor
        return tuple(sorted(name for name in names if not name.startswith(_TEMPORARY)))

    def _stored(self, name: str) -> Stored:
        with self._opened(ARTIFACTS) as here:
            size = os.stat(name, dir_fd=here, follow_symlinks=False).st_size
            content = _read(here, name, 1 << 40)
        return Stored(name, size, hashlib.sha256(content).hexdigest() if content else "")

    @contextmanager
    def _opened(self, part: str = "") -> Iterator[int]:
        """Give a descriptor of the directory or of a part of it; it is made if need be, and must be ours alone."""
        path = self.directory / part
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, _DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EIO, errno.EROFS):
                raise
            raise _unusable(path, error.strerror or str(error)) from error
        try:
            found = os.fstat(descriptor)
            if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _unusable(path, "it belongs to others, or others may write to it")
            yield descriptor
        finally:
            os.close(descriptor)


def _read(directory: int, name: str, limit_bytes: int) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES):
            return b""
        raise
    with open(descriptor, "rb") as file:  # noqa: PTH123 - Path cannot open a descriptor
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit_bytes:
            return b""
        content = file.read(min(found.st_size, limit_bytes) + 1)
        return content if len(content) <= limit_bytes else b""


def _write(directory: int, name: str, content: bytes) -> None:
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
        if stat.S_ISDIR(_mode(directory, name)):
            _remove(directory, name)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def _thin_out(evidence: int) -> None:
    for old in sorted(os.listdir(evidence))[:-EVIDENCE]:
        _remove(evidence, old)


def _mode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _remove(directory: int, name: str) -> None:
    """Remove a file, or a directory that somebody put in a file's place, if it is empty."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(_mode(directory, name)):
            with suppress(OSError):
                os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _unusable(path: Path, what: str) -> OneiricError:
    return OneiricError(
        f"the cache directory {path} cannot be used: {what}",
        hint=f"chmod 700 {path} and make it yours, or set cache_dir to another one",
    )
