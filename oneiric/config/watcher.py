"""Notice that settings files changed.

A signature of the files (times, inode, size), taken again every second, is the authority; the kernel's notifications on
the directory only make it faster, and losing them costs a second and nothing else. A hash of the content decides
whether anything changed. The directory is watched, not the files: a watch on a file goes deaf after an atomic save.
"""

from __future__ import annotations

import errno
import hashlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from oneiric.config.files import read_bounded
from oneiric.config.reader import LIMIT_BYTES
from oneiric.core.config import FILES
from oneiric.observability.describe import describe

_PATIENCE: Final = 4  # a directory that never falls quiet is read after this many times the debounce
_GROUP_MS: Final = 100  # how long notifications are gathered, so that a noisy directory costs little
_STEP_MS: Final = 20

Signature = tuple[int, ...]
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
Make = Callable[[Path], "Notifier"]


class Notifier(Protocol):
    """The part of ``watchfiles``' backend that we use."""

    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: Any) -> Any:
        """Block until something happened in the directory, the time is over or *stop_event* is set."""


def kernel_notifier(directory: Path) -> Notifier:
    """Return the operating system's notifications for *directory*; raises OSError when it has none to give."""
    from watchfiles._rust_notify import RustNotify

    return RustNotify(
        watch_paths=[str(directory)],
        debug=False,
        force_polling=False,
        poll_delay_ms=0,
        recursive=False,
        ignore_permission_denied=False,  # would also hide that the kernel has no watch left to give
    )


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run *work* in a thread that others cannot keep waiting, and that a cancellation does not wait for."""
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


class DirectoryWatch:
    """Watches a settings directory, which need not exist.

    What the files hold when the watch is made is what changes are measured against: make it before reading them.

    Args:
        debounce: seconds without a change before files are read; may be set anew at any time.
        poll: seconds between two looks at the directory.
        on_degraded: told why when the kernel gives no notifications, or no more, and only polling is left.
        notifier: makes the source of notifications; None for polling alone.
        run: runs a blocking function.
    """

    def __init__(
        self,
        directory: Path,
        *,
        debounce: float = 0.5,
        poll: float = 1.0,
        on_degraded: Callable[[str], None] | None = None,
        notifier: Make | None = kernel_notifier,
        run: Run = in_thread,
    ) -> None:
        self._directory = directory
        self.debounce = debounce
        self._poll = poll
        self._on_degraded = on_degraded
        self._notifier = notifier
        self._run = run
        self._resumed: anyio.Event | None = None
        self._unreadable = False
        self._signatures = self._look()
        self._digests = self._read()

    @property
    def paused(self) -> bool:
        """Whether changes are held back until ``resume``."""
        return self._resumed is not None

    def pause(self) -> None:
        """Yield nothing until ``resume``."""
        self._resumed = self._resumed or anyio.Event()

    def resume(self) -> None:
        """Go on, beginning with what changed in the meantime."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    async def changes(self) -> AsyncGenerator[frozenset[str], None]:
        """Iterate over the names of files whose content changed, each time the directory fell quiet. Never raises."""
        bell = _Bell(self._directory, self._notifier, self._on_degraded, self._run)
        try:
            while True:
                await self._awaken(bell)
                signatures = await self._off_loop(self._look)
                if signatures == self._signatures and not self._unreadable:
                    continue
                signatures = await self._quiet(signatures)
                digests = await self._off_loop(self._read)
                if self._resumed is not None:
                    continue  # noticed again after resume, because nothing was remembered
                changed = frozenset(name for name in FILES if digests[name] != self._digests[name])
                self._signatures, self._digests = signatures, digests
                if changed:
                    yield changed
        finally:
            bell.stop()

    async def _awaken(self, bell: _Bell) -> None:
        """Return when there may be something to see."""
        if self._resumed is not None:
            await self._resumed.wait()
        else:
            await bell.wait(self._poll, self._signatures[""])

    async def _quiet(self, signatures: Mapping[str, Signature]) -> Mapping[str, Signature]:
        """Return the signatures of the directory once it has been quiet for long enough, or when patience ends."""
        deadline = anyio.current_time() + _PATIENCE * self.debounce
        while (left := deadline - anyio.current_time()) > 0:
            await anyio.sleep(min(self.debounce, left))
            later = await self._off_loop(self._look)
            if later == signatures:
                break
            signatures = later
        return signatures

    async def _off_loop(self, work: Callable[[], Any]) -> Any:
        try:
            return await self._run(work)
        except RuntimeError:  # no thread can be started: looking from here does less harm than not looking
            return work()

    def _look(self) -> Mapping[str, Signature]:
        """Return what ``stat`` says about the directory (under "") and about each settings file."""
        return {"": _identity(self._directory), **{name: _signature(self._directory / name) for name in FILES}}

    def _read(self) -> Mapping[str, str]:
        """Return what each file holds, or why it cannot be read: no change of its signature may tell when it can."""
        self._unreadable = False
        return {name: self._digest(self._directory / name) for name in FILES}

    def _digest(self, path: Path) -> str:
        try:
            return hashlib.sha256(read_bounded(path, LIMIT_BYTES)).hexdigest()
        except OSError as error:
            self._unreadable |= error.errno != errno.ENOENT
            return str(error.strerror)


class _Bell:
    """Rings when the kernel says that the directory changed. Without the kernel it only keeps time."""

    def __init__(self, directory: Path, make: Make | None, on_degraded: Callable[[str], None] | None, run: Run) -> None:
        self._directory = directory
        self._make = make
        self._on_degraded = on_degraded
        self._run = run
        self._notifier: Notifier | None = None
        self._identity: Signature | None = None
        self._stopped = Event()

    async def wait(self, seconds: float, identity: Signature) -> None:
        """Return after *seconds*, or sooner when something happened in the directory.

        Args:
            identity: which directory it is, empty when there is none; another of the same name is listened to anew.
        """
        try:
            if self._make is not None and identity != self._identity:
                self._identity, self._notifier = identity, None
                self._notifier = self._make(self._directory) if identity else None
            if self._notifier is not None:
                watch, limit_ms = self._notifier.watch, math.ceil(seconds * 1000)
                await self._run(lambda: watch(_GROUP_MS, _STEP_MS, limit_ms, self._stopped))
                return
        except Exception as error:  # foreign code; polling goes on whatever it raises
            self._notifier = None
            if self._on_degraded is not None:
                self._on_degraded(describe(error))
        await anyio.sleep(seconds)

    def stop(self) -> None:
        """Let go of the directory, and of the thread that waits for it."""
        self._stopped.set()
        self._notifier = None


def _identity(directory: Path) -> Signature:
    try:
        found = directory.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError as error:
        return (-(error.errno or 1),)
    # The change time tells what the others miss: a file made readable, or written with its old times restored.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, found.st_size
