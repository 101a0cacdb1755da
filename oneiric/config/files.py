"""Read small files that people, editors and mounts put in our way, without hanging on what is not a file."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_REMEDIES: Final = {
    errno.EACCES: "make it readable for the user who runs oneiric",
    errno.EPERM: "make it readable for the user who runs oneiric",
    errno.ELOOP: "the symbolic links lead in a circle",
    errno.ENOENT: "repair or remove the symbolic link",
    errno.EFBIG: "split it, or remove what does not belong there",
}


def read_bounded(path: os.PathLike[str] | str, limit_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises OSError, with words for an operator in ``strerror``, for all else: a directory, a pipe, a file larger than
    *limit_bytes* (which is then not read).
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
            raise OSError(errno.EINVAL, f"it is {kind}, not a file")
        with open(descriptor, "rb", closefd=False) as file:
            content = b"" if found.st_size > limit_bytes else file.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    if max(found.st_size, len(content)) > limit_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {limit_bytes:,} bytes")
    return content


def remedy(error: OSError) -> str:
    """Return what to do about a file that could not be read."""
    return _REMEDIES.get(error.errno or 0, "put a readable file there, or remove it")
