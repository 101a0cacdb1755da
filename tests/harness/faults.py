"""The machine going wrong on purpose: what a test needs for that, and the faults it causes.

Every fault is a block: it is there when the block begins and gone when it ends, whatever the block does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import pytest

PACKAGES: Final = {
    "faketime": "faketime",
    "mount": "mount",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
    "strace": "strace",
    "unshare": "util-linux",
}
"""The programs that faults need and the Debian packages they come in."""


def require(*programs: str) -> None:
    """Skip the test with the reason and the remedy where a program is missing; under CI fail it."""
    packages = [PACKAGES[name] for name in programs if shutil.which(name) is None]
    if packages:
        _lacks(f"not installed: {' '.join(packages)}; try: apt-get install -y {' '.join(packages)}")


def require_root() -> None:
    """Skip the test, or fail it under CI, where we may not mount, trace or act as another user."""
    if os.geteuid() != 0:
        _lacks("only root can cause this fault; try: sudo make test")


def require_user_namespaces() -> None:
    """Skip the test, or fail it under CI, where we may not have a user namespace of our own."""
    require("unshare")
    tried = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        _lacks(f"no user namespaces: {tried.stderr.strip()}; try: a container with --security-opt seccomp=unconfined")


def _lacks(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def tmpfs(directory: Path, *, size: str) -> Iterator[None]:
    """Put a small disk at *directory*."""
    directory.mkdir(mode=0o700)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(directory))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(directory))


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Fill the disk that *directory* is on; call it on a tmpfs only."""
    filler = directory / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (4096, 1):
                _write_until_full(file.fileno(), bytes(size))
        yield
    finally:
        filler.unlink()


def _write_until_full(descriptor: int, block: bytes) -> None:
    try:
        while True:
            os.write(descriptor, block)
    except OSError:
        return


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Let everyone who opens a path below *directory* find a read-only disk, although files there are open."""
    _mount("--bind", str(directory), str(directory))
    try:
        _mount("-o", "remount,bind,ro", str(directory))
        yield
    finally:
        _run("umount", "--lazy", str(directory))


@contextmanager
def injected(pid: int, *faults: str, paths: Sequence[Path]) -> Iterator[None]:
    """Have system calls of a process fail where they are about *paths*.

    Args:
        faults: as strace(1) takes them after ``-e inject=``, such as ``fdatasync:error=EIO``.
    """
    require("strace")
    options = [f"--trace-path={path}" for path in paths] + [f"--inject={fault}" for fault in faults]
    command = ["strace", "--follow-forks", "--output=/dev/null", *options, f"--attach={pid}"]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = ""
        for line in tracer.stderr:
            said += line
            if " attached" in line:
                break
        else:
            _lacks(f"strace may not attach: {said.strip()}; try: as root, in a container with --cap-add SYS_PTRACE")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)


def limit(pid: int, resource: str, value: str) -> None:
    """Set a limit of a running process: ``limit(pid, "nofile", "64:")``."""
    require("prlimit")
    _run("prlimit", f"--pid={pid}", f"--{resource}={value}")


def _mount(*arguments: str) -> None:
    require_root()
    require("mount")
    try:
        _run("mount", *arguments)
    except AssertionError as error:
        _lacks(f"{error}; try: a container with --cap-add SYS_ADMIN")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")


def faked_clock(file: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock is off by what *file* says, such as ``+1h``, at any time.

    Its monotonic clock stays right, as when somebody sets the time of a machine.
    """
    require("faketime")
    file.write_text("+0\n")
    ask = ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    asked = subprocess.run(ask, capture_output=True, text=True, check=True)
    return {
        "LD_PRELOAD": asked.stdout.strip(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
