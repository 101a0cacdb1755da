"""Worker processes: one for each contender, of which only one computes at a time."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from benchmarks.peers.environments import Environment

WORKER: Final = Path(__file__).with_name("worker.py")
DEADLINE: Final = 60.0


class WorkerError(Exception):
    """A contender could not do what it was ordered to."""


class Worker:
    """Orders what one contender does, and waits for the answer."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Any, deadline: float) -> None:
        self._process = process
        self._errors = errors
        self._deadline = deadline

    def ask(self, **order: Any) -> dict[str, Any]:
        """Return the answer; raises WorkerError for one that says what went wrong, and when there is none in time."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        try:
            orders.write(json.dumps(order).encode() + b"\n")
            orders.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        ready, _, _ = select.select([answers], [], [], self._deadline)
        if not ready:
            self._process.kill()
            raise WorkerError(f"not done within {self._deadline:g} s")
        line = answers.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"the worker ended with {status}"


@contextmanager
def worker(environment: Environment, *, contender: Path | None = None, deadline: float = DEADLINE) -> Iterator[Worker]:
    """Start the worker of a contender; end it afterwards.

    Args:
        deadline: how long one order may take, in seconds.
    """
    if environment.error:
        raise WorkerError(environment.error)
    command: Sequence[str | Path] = [
        environment.python,
        "-P",
        "-W",
        "ignore",
        WORKER,
        contender or environment.contender,
    ]
    with TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            cwd="/",
            env=variables(environment.path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Worker(process, errors, deadline)
        finally:
            process.kill()
            process.communicate()


def variables(path: str) -> dict[str, str]:
    """Return our environment variables without what configures Python or Oneiric; *path* is where to import from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ONEIRIC_"))}
    return kept | ({"PYTHONPATH": path} if path else {})
