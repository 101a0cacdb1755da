"""Processes to be measured from outside: commands from their start to their end, and servers while they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measure import Sample

ROOT: Final = Path(__file__).parents[1]
COMPILED: Final = ROOT / "build" / "benchmarks"
"""Where the modules are compiled to, once for all processes."""
DEADLINE: Final = 60.0
_PROCESS_CLOCK: Final = 2  # with the complement of a process's id, its clock: clock_getcpuclockid(3)
PARTS: Final = """
from oneiric import Candidate, Slot


class Part:
    async def health(self):
        return True

    async def aclose(self):
        pass


async def build():
    return Part()


CANDIDATES = [
    Candidate(slot=Slot("adapter", f"part-{{number}}"), provider="only", factory=build) for number in range({slots})
]
"""


class Launcher:
    """Starts commands in *directory* from a small process, and knows the peak memory of each.

    Args:
        environ: what their environment has beside ours.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path, environ: Mapping[str, str]) -> None:
        self._process = process
        self._directory = directory
        self._environ = environ
        self._peaks: dict[tuple[str, ...], list[int]] = {}

    def error(self, *command: str) -> str:
        """Run *command* once, which also compiles what it imports; return "" or why it cannot be measured."""
        done = subprocess.run(
            command,
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        said = done.stderr.strip().splitlines() or ["no message"]
        return f"exit {done.returncode}: {said[-1]}" if done.returncode else ""

    def peak(self, *command: str) -> float:
        """Return the median of the peaks of all runs of *command*."""
        return median(self._peaks[command])

    def process(self, *command: str) -> Sample:
        """Return what runs *command* once."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None

        async def sample() -> Sequence[float]:
            orders.write("\t".join(command) + "\n")
            orders.flush()
            seconds, peak, status = answers.readline().split()
            if status != "0":
                raise AssertionError(f"{' '.join(command)} ended with {status}")
            self._peaks.setdefault(command, []).append(int(peak))
            return [float(seconds)]

        return sample


@contextmanager
def launcher(directory: Path, **more: str) -> Iterator[Launcher]:
    """Give a launcher for the length of a block; its commands have *more* in their environment."""
    environ = environment() | more
    script = Path(__file__).with_name("launch.py")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(script)],
        cwd=directory,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Launcher(process, directory, environ)


def environment() -> dict[str, str]:
    """Return our environment without what configures Oneiric, and with compiled modules, as an installation has."""
    unwanted = ("ONEIRIC_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return kept | {"PYTHONPYCACHEPREFIX": str(COMPILED), "PYTHONPATH": str(ROOT)}


class Server:
    """A process that serves; its figures are those of ``/proc``.

    Args:
        ready: the line, of JSON, with which it said that it serves.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path, ready: Mapping[str, str]) -> None:
        self.directory = directory
        self.ready = ready
        self._pid = process.pid

    @property
    def resident_bytes(self) -> int:
        """The memory it has now."""
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """The time that all its threads spent on a core, exact where ``/proc/PID/stat`` counts ticks."""
        return time.clock_gettime((~self._pid << 3) | _PROCESS_CLOCK)


@contextmanager
def serving(directory: Path, *command: str) -> Iterator[Server]:
    """Run *command*, which prints JSON when it serves, for the length of a block; it is ended by SIGTERM."""
    with subprocess.Popen(
        command,
        cwd=directory,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=deque, args=(process.stdout, 0), daemon=True)  # or a full pipe stops it
        try:
            ready = _readiness(process)
            reader.start()
            yield Server(process, directory, ready)
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE)
            finally:
                process.kill()
        reader.join(DEADLINE)


def _readiness(process: subprocess.Popen[str]) -> Mapping[str, str]:
    assert process.stdout is not None
    for line in process.stdout:
        if '-ready"' in line:
            event: dict[str, str] = json.loads(line)
            return event
    raise AssertionError(f"{process.args!r} ended before it served")


DAEMON: Final = (sys.executable, "-m", "oneiric", "orchestrate", "--http", "127.0.0.1:0", "--no-remote")


def project(directory: Path, slots: int) -> Path:
    """Make *directory* a project with so many slots, each filled by an instance when its daemon serves."""
    (directory / "settings").mkdir(parents=True)
    (directory / "parts.py").write_text(PARTS.format(slots=slots))
    plugin(directory, "parts", "[oneiric.adapters]\nparts = parts:CANDIDATES\n")
    selections = {f"part-{number}": "only" for number in range(slots)}
    (directory / "settings" / "adapters.yml").write_text(json.dumps({"selections": selections}))
    return directory


def plugin(directory: Path, name: str, entry_points: str) -> None:
    """Make it look as if a distribution with these entry points were installed in *directory*."""
    described = directory / f"{name}-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (described / "RECORD").write_text("")
    (described / "entry_points.txt").write_text(entry_points)
