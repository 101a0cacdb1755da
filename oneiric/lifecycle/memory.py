"""How much memory this process has."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

ESTIMATE_BYTES: Final = 50 * 1024 * 1024
"""What the runbook reckons for an instance; ``status`` shows the measured figure beside it."""
OVERHEAD_BYTES: Final = 500 * 1024 * 1024
"""What the runbook adds to that for the process itself."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident_bytes() -> int:
    """Return this process's resident set in bytes, 0 where the system does not tell (proc(5), statm)."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - called at each activation
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def limit_bytes(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> int | None:
    """Return how much memory this process may have, None where nothing limits it (cgroups v2, memory.max)."""
    try:
        with open(own, encoding="ascii") as file:  # noqa: PTH123
            path = next(line[3:].strip() for line in file if line.startswith("0::"))
    except (OSError, StopIteration, UnicodeDecodeError):
        path = "/"
    limits = []
    while True:  # the narrowest of all around it
        path = path.rstrip("/")
        with suppress(OSError, ValueError), open(f"{root}{path}/memory.max", "rb") as limit:  # noqa: PTH123
            limits.append(int(limit.read()))
        if not path:
            return min(limits, default=None)
        path = path.rpartition("/")[0]
