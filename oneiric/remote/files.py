"""Files that are whole and ours: in a directory that nobody else may write to, reached without following a link.

A file is written beside its final name, synced and moved there, so that a crash leaves the old one or the new one. What
a crash leaves besides, whoever writes next sweeps away. Every function here blocks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from oneiric.errors import OneiricError

TEMPORARY: Final = ".tmp-"
LOCK_TIMEOUT: Final = 30.0
"""Seconds to wait for another process that writes."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_USABLE: Final = (errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EEXIST)
_LINKED: Final = (errno.ELOOP, errno.ENXIO, errno.EACCES)
_PIECE: Final = 1 << 24
_PACE: Final = 0.02


@contextmanager
def opened(directory: Path, part: str = "", *, make: bool = False) -> Iterator[int]:
    """Give a descriptor of *directory*, or of *part* of it.

    Args:
        make: make what is not there yet; FileNotFoundError is raised otherwise.

    Raises OneiricError unless both are directories, and ours alone to write to.
    """
    path = directory / part
    try:
        if make:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, _DIRECTORY)
        try:
            _require_ours(descriptor, directory)
            if part:
                descriptor = _replace_descriptor(descriptor, _open_part(descriptor, part, make=make))
                _require_ours(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        if error.errno not in _NOT_USABLE:
            raise
        what = "links are not followed" if directory.is_symlink() or path.is_symlink() else error.strerror
        raise unusable(path, what or str(error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_part(directory: int, part: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, 0o700, dir_fd=directory)
    return os.open(part, _DIRECTORY, dir_fd=directory)


def _replace_descriptor(old: int, new: int) -> int:
    os.close(old)
    return new


def _require_ours(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise unusable(path, "it belongs to others, or others may write to it")


def unusable(path: Path, what: str) -> OneiricError:
    """Return the error for a directory that is not ours to use."""
    return OneiricError(
        f"the directory {path} cannot be used: {what}",
        hint=f"ls -ld {path}; make it a directory of your own: chown $(id -u) {path} && chmod 700 {path}",
    )


def read(directory: int, name: str, limit_bytes: int) -> bytes | None:
    """Return a file's bytes, None when there is none; b"" for what is no regular file, too large or unreadable."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _LINKED:
            return b""
        raise
    try:
        found = os.fstat(descriptor)
        is_wanted = stat.S_ISREG(found.st_mode) and found.st_size <= limit_bytes
        return _read_all(descriptor, limit_bytes) if is_wanted else b""
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, limit_bytes: int) -> bytes:
    pieces, size = [], 0
    try:
        while piece := os.read(descriptor, _PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                return b""
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""  # a bad block damages a file as well as anything else does
    return b"".join(pieces)


@contextmanager
def staged(directory: int, name: str, content: bytes) -> Iterator[Callable[[], None]]:
    """Write what is to be the file *name*; calling what is given makes it so, at once and for good.

    Raises OSError, and leaves what was there, when the disk fails.
    """
    temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
        yield partial(_move, directory, temporary, name)
    finally:
        with suppress(OSError):  # it is gone once it was moved
            os.unlink(temporary, dir_fd=directory)


def write(directory: int, name: str, content: bytes) -> None:
    """Make *content* the file *name*; raises OSError, and leaves what was there, when the disk fails."""
    with staged(directory, name, content) as commit:
        commit()


def _move(directory: int, temporary: str, name: str) -> None:
    if stat.S_ISDIR(_mode(directory, name)):
        remove(directory, name)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def sweep(directory: int) -> None:
    """Remove what a crash left behind; hold the lock, or somebody may still be writing it."""
    for name in os.listdir(directory):
        if name.startswith(TEMPORARY):
            remove(directory, name)


def remove(directory: int, name: str) -> None:
    """Remove a file, or a directory that somebody put in a file's place."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(_mode(directory, name)):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _mode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


@contextmanager
def locked(directory: Path, name: str, *, timeout: float | None = None) -> Iterator[None]:
    """Keep other processes from what the lock *name* in *directory* stands for.

    Raises OneiricError when another one holds it for *timeout* seconds, ``LOCK_TIMEOUT`` if omitted.
    """
    deadline = time.monotonic() + (LOCK_TIMEOUT if timeout is None else timeout)
    descriptor = _lock(directory, name, deadline)
    while not _is_at(descriptor, directory / name):  # removed while we waited, and perhaps there again for others
        os.close(descriptor)
        descriptor = _lock(directory, name, deadline)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(directory: Path, name: str, deadline: float) -> int:
    with opened(directory, make=True) as here:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=here)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OneiricError(
                        f"{directory / name}: another process has been writing here for too long",
                        hint=f"see which one: fuser -v {directory / name}",
                    ) from None
            time.sleep(_PACE)
    except BaseException:
        os.close(descriptor)
        raise


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))
