"""How much memory this process has."""

from __future__ import annotations

import os
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
