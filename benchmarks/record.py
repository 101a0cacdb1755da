"""What is kept of runs: each benchmark's rows with the environment they were taken in, as one JSON file.

A benchmark is replaced whole, so a file may hold runs of several machines; each says which.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Row

SCHEMA: Final = "oneiric.benchmarks/2"
PACKAGES: Final = ("msgspec", "PyYAML", "cryptography", "httpx2", "starlette", "uvicorn", "prometheus_client", "anyio")


@dataclass(frozen=True)
class Run:
    """One benchmark as it was run: what it found, how thoroughly, where, and how long all of it took.

    Args:
        budget: ``quick``, ``brief`` or ``full``.
        load: how many programs wanted a core when it began, over a minute.
    """

    rows: tuple[Row, ...]
    budget: str
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    load: float = 0.0


def environment() -> dict[str, str]:
    """Return what figures depend on: processor, Python and how it was built, kernel, and what is measured against."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {_build()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": ", ".join(f"{name} {number}" for name in PACKAGES if (number := _version(name))),
    }


def _processor() -> str:
    try:
        told = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        told = None
    return " ".join(told[1].split()) if told else platform.machine()


def _build() -> str:
    """Return which of the two optimizations that matter most the interpreter was built with."""
    configured = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    built = {"PGO": "--enable-optimizations" in configured, "LTO": "--with-lto" in configured}
    return "built " + " and ".join(f"{'with' if is_on else 'without'} {name}" for name, is_on in built.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def read(file: Path) -> dict[str, Run]:
    """Return the runs that *file* holds, by benchmark; none when there is no file."""
    if not file.exists():
        return {}
    document = json.loads(file.read_text(encoding="utf-8"))
    if document["schema"] != SCHEMA:
        raise ValueError(f"{file} is {document['schema']}, not {SCHEMA}; write a new one with --json")
    return {name: _run(run) for name, run in document["benchmarks"].items()}


def _run(run: Mapping[str, Any]) -> Run:
    known = {one.name for one in fields(Row)}
    rows = tuple(Row(**{name: value for name, value in row.items() if name in known}) for row in run["rows"])
    return Run(**{**run, "rows": rows})


def write(file: Path, runs: Mapping[str, Run]) -> None:
    """Write *runs* as JSON: durations in seconds, memory in bytes, and of each row whether its targets are met."""
    benchmarks = {
        name: asdict(run) | {"rows": [asdict(row) | {"met": row.met} for row in run.rows]} for name, run in runs.items()
    }
    file.write_text(json.dumps({"schema": SCHEMA, "benchmarks": benchmarks}, indent=1) + "\n", encoding="utf-8")
