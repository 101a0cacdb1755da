"""Read manifests and artifacts from this machine's files.

A manifest is whatever the operator typed, symbolic links included. An artifact is what that manifest names, so it must
lie under the manifest's real directory and be reached without a symbolic link: a manifest cannot point at other files.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from oneiric.errors import FetchError
from oneiric.remote.urls import is_local, printable, refusal

_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_NOT_A_LINK: Final = (errno.ELOOP, errno.ENOTDIR)


def to_path(url: str) -> Path:
    """Return the path that a ``file:`` URL or a plain path names; raises FetchError for a ``file:`` URL of a host."""
    if not url.lower().startswith("file:"):
        return Path(url).absolute()
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise refusal(url, "a file: URL needs an absolute path and no host", "use file:///path")
    return Path(path)


def settled(url: str) -> str:
    """Return the ``file:`` URL of the local manifest at *url*, its directory spelled without ``..``; others as is."""
    if not is_local(url):
        return url
    path = to_path(url)
    return (Path(os.path.realpath(path.parent)) / path.name if ".." in path.parts else path).as_uri()


def read_typed(url: str, limit_bytes: int) -> bytes:
    """Return the content of the file that the operator named."""
    path = to_path(url)
    with ExitStack() as stack:
        try:
            descriptor = os.open(path, _FILE)
            stack.callback(os.close, descriptor)
            return _read(descriptor, url, limit_bytes)
        except (OSError, ValueError) as error:
            raise _unreadable(url, error) from error


def read_beside(url: str, manifest_url: str, limit_bytes: int) -> bytes:
    """Return the content of an artifact below the directory of the manifest that names it."""
    path, manifest = to_path(url), to_path(manifest_url)
    if not path.is_relative_to(manifest.parent) or ".." in path.parts:
        what = "an artifact of a local manifest must lie below the manifest's directory"
        raise refusal(url, what, "move it there")
    *directories, name = path.relative_to(manifest.parent).parts or (".",)
    with ExitStack() as stack:
        try:
            descriptor = os.open(Path(os.path.realpath(manifest)).parent, _DIRECTORY)
            stack.callback(os.close, descriptor)
            for directory in directories:
                descriptor = os.open(directory, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                stack.callback(os.close, descriptor)
            descriptor = os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
            return _read(descriptor, url, limit_bytes)
        except OSError as error:
            if error.errno in _NOT_A_LINK:
                what = "a symbolic link, or no directory, on the way to an artifact"
                raise refusal(url, what, "put the file itself there") from error
            raise _unreadable(url, error) from error


def _read(descriptor: int, url: str, limit_bytes: int) -> bytes:
    """Return the content of a regular file, of which at most one byte too many is read."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    with open(descriptor, "rb", closefd=False) as file:
        content = b"" if found.st_size > limit_bytes else file.read(limit_bytes + 1)
    if max(found.st_size, len(content)) > limit_bytes:
        raise too_large(url, limit_bytes)
    return content


def too_large(url: str, limit_bytes: int) -> FetchError:
    """Return the error for content beyond the cap."""
    return FetchError(
        f"size: {printable(url)}: larger than the {limit_bytes:,} bytes allowed",
        reason="size",
        hint="raise remote.max_manifest_bytes or remote.max_artifact_bytes, if the size is as it should be",
    )


def _unreadable(url: str, error: OSError | ValueError) -> FetchError:
    what = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return FetchError(
        f"file: {printable(url)}: {what[:1].lower()}{what[1:]}",
        reason="file",
        hint="name a file that the user who runs oneiric can read",
    )
