"""What a daemon needs of the machine before it starts: its state directory, the lock on it, and its two sockets."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from oneiric.errors import DaemonRefusedError

SOCKET_LIMIT: Final = 107
"""Bytes that fit in a Unix socket's address on Linux (unix(7))."""
BACKLOG: Final = 1024
"""Connections that may wait to be let in."""
FIRST_INHERITED: Final = 3
"""Where what a service manager hands over begins: SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def claim(directory: Path) -> int:
    """Make the state directory, lock it, and return the lock's file descriptor; the lock ends with the process.

    Raises DaemonRefusedError when another daemon holds it (naming its pid) or the directory cannot be used.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise _unusable(directory, error.strerror or str(error)) from error
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(directory, "others may write to it", f"chmod 700 {directory}; chown it to the daemon's user")
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(directory, f"its lock cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 200, 0).decode("utf-8", "replace")
        os.close(lock)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise _unusable(directory, f"it cannot be locked: {error.strerror}") from error
        raise DaemonRefusedError(
            f"another daemon ({_pid(holder)}) uses the state directory {directory}",
            hint="oneiric status; or give this one its own: ONEIRIC_STATE_DIR=other oneiric orchestrate",
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps({"pid": os.getpid()}).encode(), 0)
    except OSError as error:  # a full disk: the lock holds all the same
        if error.errno != errno.ENOSPC:
            raise _unusable(directory, f"its lock cannot be written: {error.strerror}") from error
    return lock


def _pid(holder: str) -> str:
    try:
        return f"pid {int(json.loads(holder)['pid'])}"
    except (ValueError, KeyError, TypeError):
        return "pid unknown"


def _unusable(directory: Path, what: str, hint: str = "") -> DaemonRefusedError:
    return DaemonRefusedError(
        f"the state directory {directory} cannot be used: {what}",
        hint=hint or "name one that is writable: state_dir in settings/app.yml, or ONEIRIC_STATE_DIR",
    )


def control_socket(path: Path) -> socket.socket:
    """Return a listening Unix socket at *path*, mode 0600; a stale one there is removed, so hold the lock.

    Raises DaemonRefusedError when the path is too long, taken by something else, or cannot be made.
    """
    if len(os.fsencode(path)) > SOCKET_LIMIT:
        raise DaemonRefusedError(
            f"the socket path {path} has {len(os.fsencode(path))} bytes, the system allows {SOCKET_LIMIT}",
            hint="set api.socket in settings/app.yml, or --socket, to a shorter path such as /run/oneiric/oneiric.sock",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_way(path)
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise DaemonRefusedError(
            f"the socket {path} cannot be made: {error.strerror or error}", hint="set api.socket in settings/app.yml"
        ) from error
    except DaemonRefusedError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _make_way(path: Path) -> None:
    """Remove the socket that an earlier daemon left behind; refuse to remove anything else."""
    if path.exists() or path.is_symlink():
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise DaemonRefusedError(f"{path} is there and is not a socket", hint=f"remove {path}, or set api.socket")
        if _is_served(path):
            raise DaemonRefusedError(
                f"another daemon, with another state directory, serves on {path}",
                hint=f"oneiric --socket {path} status; or set api.socket to another path for this one",
            )
        path.unlink()


def _is_served(path: Path) -> bool:
    """Say whether somebody listens at the socket *path*; it was left behind only if the system says nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a daemon too busy to let us in is there all the same
        return probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED


def remove_socket(path: Path) -> None:
    """Remove our socket at the end. One that has to stay, as on a disk now read-only, is replaced at the next start."""
    with suppress(OSError):
        path.unlink()


def inherited_socket(environ: Mapping[str, str]) -> socket.socket | None:
    """Return the listening TCP socket that the service manager made for us, None where it made none.

    Raises DaemonRefusedError when it hands over anything else. Source: sd_listen_fds(3).
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):  # what a parent of ours was given is not for us
        return None
    count = environ.get("LISTEN_FDS", "0")
    if count != "1":
        raise _not_the_http_socket(f"{count} sockets")
    try:
        listener = socket.socket(fileno=FIRST_INHERITED)
    except OSError as error:
        raise _not_the_http_socket("what is no socket") from error
    listener.set_inheritable(False)
    is_internet = listener.family in (socket.AF_INET, socket.AF_INET6)
    if not (is_internet and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        listener.close()
        raise _not_the_http_socket("a socket that is not a listening TCP socket")
    return listener


def _not_the_http_socket(what: str) -> DaemonRefusedError:
    return DaemonRefusedError(
        f"the service manager hands over {what}; the daemon takes one listening TCP socket, for HTTP",
        hint="keep one ListenStream=HOST:PORT in oneiric.socket; the control socket is made by the daemon",
    )


def http_socket(address: str) -> socket.socket:
    """Return a listening TCP socket at ``HOST:PORT``; raises DaemonRefusedError when it is taken or not ours."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DaemonRefusedError(
            f"cannot listen on {address}: {text}",
            hint="stop what uses it, or choose another: oneiric orchestrate --http 127.0.0.1:0",
        ) from error
